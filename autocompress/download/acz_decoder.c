/* Rebuilds the file that an .acz download holds; C99 without dependencies.
 *
 *     long long acz_size(const uint8_t *download, size_t size);
 *     int acz_unpack(const uint8_t *download, size_t size, uint8_t *file, size_t file_size);
 *     const char *acz_message(int result);
 *
 * acz_size gives the bytes of the file, or -1 where the download is no whole .acz file; check it against a limit of
 * your own, allocate as much, and call acz_unpack. What is damaged ends in a result other than ACZ_OK; the content of
 * `file` must not be used then. About 12 MB are allocated while it works, besides 8 times the largest tensor of packed
 * numbers at most.
 *
 * As a program:  cc -O2 -DACZ_MAIN acz_decoder.c -o acz && ./acz model.onnx.acz model.onnx
 *
 * The format is specified in docs/download.md of autocompress.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACZ_OK 0
#define ACZ_DAMAGED 1
#define ACZ_NO_MEMORY 2
#define ACZ_WRONG_HASH 3

#define HEADER_BYTES 57
#define MOST_TIMES 1000u
#define MOST_TIMES_BYTES 64u
#define MOST_MODELLED (1u << 26)
#define MOST_TABLES 255
#define MOST_LANE_BITS 12
#define SCALE_BITS 14
#define SCALE (1u << SCALE_BITS)
#define LOWEST_STATE (1u << 16)
#define SLOT_BITS 18
#define COUNT_LIMIT 30
#define CONTEXTS 5
#define INPUTS 7
#define NAME_BYTES 4
#define OTHER 0
#define SYMBOLS 1
#define DIGITS 2
#define KERNELS 3
#define MOST_MODELS 64
#define MOST_PLACES 256
#define MOST_BINS 16
#define MOST_CLASSES 16

/* ---- sha256 (FIPS 180-4) ---- */

static const uint32_t SHA_CONSTANTS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2};

static uint32_t rotated(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha_block(uint32_t *h, const uint8_t *p) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotated(a, 7) ^ rotated(a, 18) ^ a >> 3) + w[i - 7] +
               (rotated(b, 17) ^ rotated(b, 19) ^ b >> 10);
    }
    memcpy(v, h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t first = v[7] + (rotated(v[4], 6) ^ rotated(v[4], 11) ^ rotated(v[4], 25)) +
                         ((v[4] & v[5]) ^ (~v[4] & v[6])) + SHA_CONSTANTS[i] + w[i];
        uint32_t second = (rotated(v[0], 2) ^ rotated(v[0], 13) ^ rotated(v[0], 22)) +
                          ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += first;
        v[0] = first + second;
    }
    for (int i = 0; i < 8; i++) h[i] += v[i];
}

static int has_hash(const uint8_t *content, size_t size, const uint8_t *hash) {
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t last[128] = {0};
    size_t at = 0, rest, ends;
    uint8_t different = 0;
    for (; size - at >= 64; at += 64) sha_block(h, content + at);
    rest = size - at;
    if (rest) memcpy(last, content + at, rest);
    last[rest] = 0x80;
    ends = rest < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++) last[ends - 1 - (size_t)i] = (uint8_t)((uint64_t)size * 8 >> 8 * i);
    sha_block(h, last);
    if (ends == 128) sha_block(h, last + 64);
    for (int i = 0; i < 32; i++) different |= (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4))) ^ hash[i];
    return different == 0;
}

/* ---- the byte model: five contexts and two guesses of names, mixed as logits ---- */

static const int CURVE[33] = {1,    2,    3,    6,    10,   16,   27,   45,   73,   120,  194,
                              310,  488,  747,  1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785,
                              3901, 3975, 4024, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094};
static const uint32_t MULTIPLIERS[3] = {0x2F0B4C47u, 0x9E3779B1u, 0x85EBCA6Bu};
static const char LETTERS[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

typedef struct {
    int length;
    uint8_t bytes[NAME_BYTES + 1];
} Name;

typedef struct {
    uint32_t *tables[CONTEXTS];
    uint32_t guess_table[1152];
    int64_t weights[256][INPUTS];
    int16_t stretch[4096];
    int32_t rates[COUNT_LIMIT + 1];
    /* names */
    Name last[9], seen, guesses[2];
    int place, inputs, left, missed[2], guessed[2];
    /* bytes */
    uint32_t history[4], hashes[CONTEXTS], bases[CONTEXTS], op, hashing, distance;
    int to_come;
    /* the bit whose probability was asked for last */
    uint32_t partial, nibble, slots[CONTEXTS];
    int32_t values[INPUTS];
    int hit[2], hit_slot[2], hit_bit[2], mixed;
} Model;

/* shifts of negative numbers round down, whatever the compiler does with them */
static int64_t shifted(int64_t x, int n) { return x >= 0 ? x >> n : -((-x - 1) >> n) - 1; }

static int squash(int64_t x) {
    int place, part;
    if (x > 2047) return 4095;
    if (x < -2047) return 1;
    place = (int)((x + 2048) >> 7);
    part = (int)((x + 2048) & 127);
    return (CURVE[place] * (128 - part) + CURVE[place + 1] * part + 64) >> 7;
}

static Name successor(Name name) {
    Name next = name;
    for (int i = name.length - 1; i >= 0; i--) {
        const char *at = next.bytes[i] ? strchr(LETTERS, next.bytes[i]) : NULL;
        if (!at) return name;
        if (at[1]) {
            next.bytes[i] = (uint8_t)at[1];
            return next;
        }
        next.bytes[i] = 'a';
    }
    /* a name of four letters may become one of five, which no name of four is guessed by */
    if (next.length <= NAME_BYTES) {
        memmove(next.bytes + 1, next.bytes, NAME_BYTES);
        next.bytes[0] = 'a';
        next.length++;
    }
    return next;
}

static void begin_nibble(Model *m) {
    for (int i = 0; i < CONTEXTS; i++) {
        uint32_t mixed = m->hashes[i] + m->partial * 0x3D4D51CBu;
        m->bases[i] = ((mixed ^ mixed >> 16) * 0x2545F491u) >> (32 - SLOT_BITS);
    }
    m->nibble = 1;
}

static void begin_byte(Model *m) {
    const uint32_t *h = m->history, *k = MULTIPLIERS;
    uint32_t two = (h[0] + 1) * k[0] + h[1];
    m->hashes[0] = (h[0] + 1) * k[0];
    m->hashes[1] = two * k[1] + 2;
    m->hashes[2] = (two * k[1] + h[2]) * k[2] + h[3] * k[0] + 3;
    m->hashes[3] = ((h[3] << 8) + h[2]) * k[1] + 4;
    m->hashes[4] = m->op * k[0] + m->distance * k[1] + 5;
    for (int i = 0; i < 2; i++)
        m->guessed[i] = m->left && m->seen.length < m->guesses[i].length ? m->guesses[i].bytes[m->seen.length] : -1;
    m->partial = 1;
    begin_nibble(m);
}

static int model_make(Model *m) {
    int filled = 0;
    memset(m, 0, sizeof *m);
    for (int i = 0; i < CONTEXTS; i++) {
        m->tables[i] = malloc(sizeof(uint32_t) << SLOT_BITS);
        if (!m->tables[i]) return ACZ_NO_MEMORY;
        for (uint32_t k = 0; k < 1u << SLOT_BITS; k++) m->tables[i][k] = 32768u << 5;
    }
    for (int i = 0; i < 1152; i++) m->guess_table[i] = 32768u << 5;
    for (int i = 0; i < 256; i++)
        for (int k = 0; k < INPUTS; k++) m->weights[i][k] = 19660;
    for (int i = 0; i <= COUNT_LIMIT; i++) m->rates[i] = 131072 / (2 * i + 3);
    for (int i = 0; i < 4096; i++) m->stretch[i] = 2047;
    for (int x = -2047; x < 2048; x++)
        for (int value = squash(x); filled <= value; filled++) m->stretch[filled] = (int16_t)x;
    begin_byte(m);
    return ACZ_OK;
}

static void model_free(Model *m) {
    for (int i = 0; i < CONTEXTS; i++) free(m->tables[i]);
}

static int model_probability(Model *m) {
    const int64_t *w = m->weights[m->partial];
    int64_t dot = 0;
    for (int i = 0; i < CONTEXTS; i++) {
        m->slots[i] = m->bases[i] ^ m->nibble;
        m->values[i] = m->stretch[m->tables[i][m->slots[i]] >> 9];
    }
    for (int i = 0; i < 2; i++) {
        int bit = 7;
        m->hit[i] = 0;
        m->values[CONTEXTS + i] = 0;
        for (uint32_t p = m->partial; p > 1; p >>= 1) bit--;
        if (m->left && m->guessed[i] >= 0 && ((uint32_t)m->guessed[i] | 256) >> (bit + 1) == m->partial) {
            int seen = m->seen.length < 3 ? m->seen.length : 3, logit;
            m->hit[i] = 1;
            m->hit_bit[i] = m->guessed[i] >> bit & 1;
            m->hit_slot[i] = (((i * 9 + m->place) * 4 + seen) * 2 + m->missed[i]) * 8 + bit;
            logit = m->stretch[m->guess_table[m->hit_slot[i]] >> 9];
            m->values[CONTEXTS + i] = m->hit_bit[i] ? logit : -logit;
        }
    }
    for (int i = 0; i < INPUTS; i++) dot += m->values[i] * w[i];
    m->mixed = squash(shifted(dot, 16));
    return m->mixed;
}

static void learn(const Model *m, uint32_t *slot, int bit) {
    uint32_t count = *slot & 31;
    int64_t chance = *slot >> 5;
    chance += shifted(((bit ? 65535 : 0) - chance) * m->rates[count], 16);
    *slot = (uint32_t)chance << 5 | (count < COUNT_LIMIT ? count + 1 : count);
}

static int names_add(Model *m, uint8_t byte, uint32_t previous) {
    if (m->left) {
        int at = m->seen.length;
        for (int i = 0; i < 2; i++)
            if (at < m->guesses[i].length && m->guesses[i].bytes[at] != byte) m->missed[i] = 1;
        m->seen.bytes[m->seen.length++] = byte;
        if (!--m->left) {
            m->last[m->place] = m->seen;
            if (m->place == 7) m->inputs = 0;
        }
        return 1;
    }
    if ((previous == 0x0A || previous == 0x12 || previous == 0x42) && byte >= 1 && byte <= NAME_BYTES) {
        Name none = {0, {0}};
        if (previous == 0x0A) {
            m->place = m->inputs < 6 ? m->inputs : 6;
            m->inputs++;
            m->guesses[0] = m->last[7];
            m->guesses[1] = successor(m->last[m->place]);
        } else {
            m->place = previous == 0x12 ? 7 : 8;
            m->guesses[0] = successor(m->last[m->place]);
            m->guesses[1] = none;
        }
        for (int i = 0; i < 2; i++) {
            if (m->guesses[i].length != byte) m->guesses[i] = none;
            m->missed[i] = 0;
        }
        m->left = byte;
        m->seen = none;
    }
    return 0;
}

static void end_byte(Model *m, uint8_t byte) {
    uint32_t before = m->history[0];
    int named;
    if (m->distance < 255) m->distance++;
    named = names_add(m, byte, before);
    if (m->to_come) {
        m->hashing = (m->hashing + byte + 1) * MULTIPLIERS[0];
        if (!--m->to_come) {
            m->op = m->hashing;
            m->distance = 0;
        }
    } else if (!named && before == 0x22 && byte >= 2 && byte < 32) {
        m->to_come = byte;
        m->hashing = 0;
    }
    memmove(m->history + 1, m->history, 3 * sizeof *m->history);
    m->history[0] = byte;
    begin_byte(m);
}

static void model_update(Model *m, int bit) {
    int64_t *w = m->weights[m->partial];
    int error = ((bit << 12) - m->mixed) * 2;
    for (int i = 0; i < INPUTS; i++) w[i] += shifted((int64_t)m->values[i] * error + 512, 10);
    for (int i = 0; i < CONTEXTS; i++) learn(m, &m->tables[i][m->slots[i]], bit);
    for (int i = 0; i < 2; i++)
        if (m->hit[i]) learn(m, &m->guess_table[m->hit_slot[i]], bit == m->hit_bit[i]);
    m->partial = m->partial * 2 + (uint32_t)bit;
    m->nibble = m->nibble * 2 + (uint32_t)bit;
    if (m->partial >= 256)
        end_byte(m, (uint8_t)(m->partial - 256));
    else if (m->partial >= 16 && m->partial < 32)
        begin_nibble(m);
}

static int modelled(const uint8_t *code, size_t size, uint8_t *found, size_t count) {
    Model *m = malloc(sizeof *m);
    uint32_t low = 0, high = 0xFFFFFFFFu, value = 0;
    size_t at = 0;
    int result = m ? model_make(m) : ACZ_NO_MEMORY;
    for (; at < 4; at++) value = value << 8 | (at < size ? code[at] : 0);
    for (size_t i = 0; i < count && result == ACZ_OK; i++) {
        uint32_t byte = 1;
        while (byte < 256) {
            uint32_t middle = low + ((high - low) >> 12) * (uint32_t)model_probability(m);
            int bit = value <= middle;
            if (bit)
                high = middle;
            else
                low = middle + 1;
            model_update(m, bit);
            byte = byte * 2 + (uint32_t)bit;
            while (!((low ^ high) >> 24)) {
                low <<= 8;
                high = high << 8 | 255;
                value = value << 8 | (at < size ? code[at] : 0);
                at++;
            }
        }
        if (at > size + 4) result = ACZ_DAMAGED;
        found[i] = (uint8_t)(byte - 256);
    }
    if (m) model_free(m);
    free(m);
    return result;
}

/* ---- the description: tables and segments ---- */

typedef struct {
    const uint8_t *content;
    size_t size, at;
    int damaged;
} Reader;

static uint64_t number(Reader *r, uint64_t lowest, uint64_t highest) {
    uint64_t value = 0;
    int shift = 0;
    for (;;) {
        uint8_t byte;
        if (r->at >= r->size || shift > 56) break;
        byte = r->content[r->at++];
        value |= (uint64_t)(byte & 127) << shift;
        shift += 7;
        if (byte < 128) {
            if (value < lowest || value > highest) break;
            return value;
        }
    }
    r->damaged = 1;
    return lowest;
}

static const uint8_t *taken(Reader *r, uint64_t count) {
    if (r->damaged || count > r->size - r->at) {
        r->damaged = 1;
        return NULL;
    }
    r->at += (size_t)count;
    return r->content + r->at - count;
}

typedef struct {
    uint32_t sizes[256], places[256];
    uint8_t symbols[SCALE];
    int alphabet;
} Table;

static int table_make(Table *table, const uint8_t *levels, int count) {
    static const uint64_t mantissas[8] = {128, 140, 152, 166, 181, 197, 215, 235};
    uint64_t weights[256], total = 0;
    uint32_t occurring = 0, sum = 0, place = 0;
    int largest = 0;
    for (int i = 0; i < count; i++) {
        weights[i] = levels[i] ? mantissas[(levels[i] - 1) % 8] << (levels[i] - 1) / 8 : 0;
        total += weights[i];
        occurring += weights[i] != 0;
        if (weights[i] > weights[largest]) largest = i;
    }
    if (!total) return ACZ_DAMAGED;
    memset(table, 0, sizeof *table);
    table->alphabet = count;
    for (int i = 0; i < count; i++) {
        table->sizes[i] = weights[i] ? (uint32_t)(weights[i] * (SCALE - occurring) / total) + 1 : 0;
        sum += table->sizes[i];
    }
    table->sizes[largest] += SCALE - sum;
    for (int i = 0; i < count; i++) {
        table->places[i] = place;
        memset(table->symbols + place, i, table->sizes[i]);
        place += table->sizes[i];
    }
    return ACZ_OK;
}

typedef struct {
    uint32_t places, width, bin_count, bins_known, classes;
    const uint8_t *bins, *tables;
    size_t cells;
} KernelModel;

static int model_read(Reader *r, int table_count, KernelModel *model) {
    model->places = (uint32_t)number(r, 1, MOST_PLACES);
    model->width = (uint32_t)number(r, 1, model->places);
    model->bin_count = (uint32_t)number(r, 1, MOST_BINS);
    model->bins_known = (uint32_t)number(r, 1, 256);
    model->bins = taken(r, model->bins_known);
    model->classes = (uint32_t)number(r, 1, MOST_CLASSES);
    model->cells = (size_t)model->classes * model->places * (model->bin_count + 1) * (model->bin_count + 1);
    model->tables = taken(r, model->cells);
    if (r->damaged) return ACZ_DAMAGED;
    for (uint32_t i = 0; i < model->bins_known; i++)
        if (model->bins[i] >= model->bin_count) return ACZ_DAMAGED;
    for (size_t i = 0; i < model->cells; i++)
        if (model->tables[i] >= table_count) return ACZ_DAMAGED;
    return ACZ_OK;
}

typedef struct {
    int kind;
    uint64_t count, run, groups;
    const uint8_t *classes;
    uint32_t base, word_bytes, digits;
    const KernelModel *model;
} Segment;

/* What the description says before its segments. */
typedef struct {
    Table *tables;
    int table_count;
    KernelModel models[MOST_MODELS];
    int model_count;
} Known;

static int tables_fit(const Segment *segment, const Known *known) {
    const uint8_t *used = segment->model ? segment->model->tables : segment->classes;
    uint64_t count = segment->model ? segment->model->cells : segment->groups;
    if (segment->model) {
        if (segment->model->bins_known < segment->base) return 0;
        for (uint64_t i = 0; i < segment->groups; i++)
            if (segment->classes[i] >= segment->model->classes) return 0;
    }
    for (uint64_t i = 0; i < count; i++)
        if (used[i] >= known->table_count || known->tables[used[i]].alphabet > (int)segment->base) return 0;
    return 1;
}

static int segment_read(Reader *r, uint64_t left, const Known *known, Segment *segment) {
    uint64_t power = 1;
    segment->kind = (int)number(r, OTHER, KERNELS);
    segment->model = NULL;
    segment->base = 256;
    segment->word_bytes = segment->digits = 1;
    if (segment->kind == DIGITS || segment->kind == KERNELS) {
        segment->base = (uint32_t)number(r, 2, 256);
        segment->word_bytes = (uint32_t)number(r, 1, 7);
        segment->digits = (uint32_t)number(r, 1, 56);
        for (uint32_t i = 0; i < segment->digits; i++) {
            if (power > ((uint64_t)1 << 8 * segment->word_bytes) / segment->base) return ACZ_DAMAGED;
            power *= segment->base;
        }
    }
    if (r->damaged || left < segment->word_bytes) return ACZ_DAMAGED;
    segment->count = number(r, 1, left / segment->word_bytes);
    if (segment->kind != OTHER) {
        uint64_t symbols = segment->count * segment->digits;
        if (segment->kind == KERNELS) {
            if (!known->model_count) return ACZ_DAMAGED;
            segment->model = known->models + number(r, 0, (uint64_t)known->model_count - 1);
        }
        segment->run = number(r, 1, symbols);
        segment->groups = number(r, 1, symbols);
        segment->classes = taken(r, segment->groups);
        if (r->damaged || !tables_fit(segment, known)) return ACZ_DAMAGED;
    }
    return r->damaged ? ACZ_DAMAGED : ACZ_OK;
}

/* ---- symbols: interleaved rANS ---- */

typedef struct {
    uint32_t states[1 << MOST_LANE_BITS];
    uint32_t lanes, lane;
    const uint8_t *words, *end;
} Symbols;

/* The next symbol by this table; -1 at the end of the code. */
static int symbol(Symbols *s, const Table *table) {
    uint32_t state = s->states[s->lane], slot = state & (SCALE - 1);
    int found = table->symbols[slot];
    state = table->sizes[found] * (state >> SCALE_BITS) + slot - table->places[found];
    if (state < LOWEST_STATE) {
        if (s->end - s->words < 2) return -1;
        state = state << 16 | (uint32_t)s->words[1] << 8 | s->words[0];
        s->words += 2;
    }
    s->states[s->lane] = state;
    if (++s->lane == s->lanes) s->lane = 0;
    return found;
}

static int symbols_begin(Symbols *s, const uint8_t *code, size_t size, int lane_bits) {
    s->lanes = 1u << lane_bits;
    s->lane = 0;
    s->words = code + 4 * (size_t)s->lanes;
    s->end = code + size;
    for (uint32_t i = 0; i < s->lanes; i++, code += 4) {
        s->states[i] = (uint32_t)code[3] << 24 | (uint32_t)code[2] << 16 | (uint32_t)code[1] << 8 | code[0];
        if (s->states[i] < LOWEST_STATE) return ACZ_DAMAGED;
    }
    return ACZ_OK;
}

static int plain_symbols(Symbols *s, const Segment *segment, const Table *tables, uint8_t *found, uint64_t count) {
    uint64_t in_run = 0, group = 0;
    for (uint64_t i = 0; i < count; i++) {
        int one = symbol(s, tables + segment->classes[group]);
        if (one < 0) return ACZ_DAMAGED;
        found[i] = (uint8_t)one;
        if (++in_run == segment->run) {
            in_run = 0;
            if (++group == segment->groups) group = 0;
        }
    }
    return ACZ_OK;
}

/* Kernels come place by place: the first symbol of all of them, the second, ... */
static int kernel_symbols(Symbols *s, const Segment *segment, const Table *tables, uint8_t *found, uint64_t count) {
    const KernelModel *m = segment->model;
    size_t side = m->bin_count + 1;
    for (uint64_t place = 0; place < m->places; place++)
        for (uint64_t at = place; at < count; at += m->places) {
            size_t before = place ? m->bins[found[at - 1]] : m->bin_count;
            size_t above = place >= m->width ? m->bins[found[at - m->width]] : m->bin_count;
            size_t of_class = segment->classes[at / segment->run % segment->groups];
            size_t cell = ((of_class * m->places + (size_t)place) * side + before) * side + above;
            int one = symbol(s, tables + m->tables[cell]);
            if (one < 0) return ACZ_DAMAGED;
            found[at] = (uint8_t)one;
        }
    return ACZ_OK;
}

static int segment_write(Symbols *s, const Segment *segment, const Table *tables, uint8_t *file) {
    uint64_t count = segment->count * segment->digits, powers[56];
    int bytes = segment->base == 256 && segment->word_bytes == 1;
    uint8_t *found = bytes ? file : malloc((size_t)count);
    int result;
    if (!found) return ACZ_NO_MEMORY;
    result = (segment->model ? kernel_symbols : plain_symbols)(s, segment, tables, found, count);
    if (bytes) return result;
    powers[0] = 1;
    for (uint32_t i = 1; i < segment->digits; i++) powers[i] = powers[i - 1] * segment->base;
    for (uint64_t i = 0; i < segment->count && result == ACZ_OK; i++) {
        uint64_t word = 0;
        for (uint32_t k = 0; k < segment->digits; k++) word += found[i * segment->digits + k] * powers[k];
        for (uint32_t k = 0; k < segment->word_bytes; k++) *file++ = (uint8_t)(word >> 8 * k);
    }
    free(found);
    return result;
}

/* ---- the whole ---- */

typedef struct {
    uint64_t size;
    const uint8_t *hash, *code;
    size_t described, others, coded, symbols;
    int lane_bits;
} Header;

static uint64_t little(const uint8_t *bytes, int count) {
    uint64_t value = 0;
    while (count--) value = value << 8 | bytes[count];
    return value;
}

static int header_read(const uint8_t *download, size_t size, Header *h) {
    size_t room;
    if (size < HEADER_BYTES || memcmp(download, "ACZ\1", 4)) return ACZ_DAMAGED;
    h->size = little(download + 4, 8);
    h->hash = download + 12;
    h->described = (size_t)little(download + 44, 4);
    h->others = (size_t)little(download + 48, 4);
    h->coded = (size_t)little(download + 52, 4);
    h->lane_bits = download[56];
    h->code = download + HEADER_BYTES;
    if (h->lane_bits > MOST_LANE_BITS) return ACZ_DAMAGED;
    if (size - HEADER_BYTES < (size_t)4 << h->lane_bits) return ACZ_DAMAGED;
    room = size - HEADER_BYTES - ((size_t)4 << h->lane_bits);
    if (h->coded > room || (room - h->coded) % 2) return ACZ_DAMAGED;
    if (h->size > (uint64_t)size * MOST_TIMES || h->size > SIZE_MAX / 16 || h->others > h->size) return ACZ_DAMAGED;
    if (h->described > MOST_MODELLED || h->others > MOST_MODELLED - h->described) return ACZ_DAMAGED;
    if (h->described + h->others > (uint64_t)h->coded * MOST_TIMES_BYTES) return ACZ_DAMAGED;
    h->symbols = size - HEADER_BYTES - h->coded;
    return ACZ_OK;
}

static int known_read(Reader *r, Known *known) {
    known->table_count = (int)number(r, 0, MOST_TABLES);
    for (int i = 0; i < known->table_count; i++) {
        int length = (int)number(r, 1, 256);
        const uint8_t *levels = taken(r, (uint64_t)length);
        if (!levels || table_make(known->tables + i, levels, length)) return ACZ_DAMAGED;
    }
    known->model_count = (int)number(r, 0, MOST_MODELS);
    for (int i = 0; i < known->model_count; i++)
        if (model_read(r, known->table_count, known->models + i)) return ACZ_DAMAGED;
    return r->damaged ? ACZ_DAMAGED : ACZ_OK;
}

static int rebuild(const Header *h, const uint8_t *bytes, Symbols *s, Known *known, uint8_t *file) {
    Reader r = {bytes, h->described, 0, 0};
    const uint8_t *others = bytes + h->described;
    uint64_t left = h->size, unused = h->others;
    int result = known_read(&r, known);
    while (left && result == ACZ_OK) {
        Segment segment;
        uint64_t size;
        if (segment_read(&r, left, known, &segment)) return ACZ_DAMAGED;
        size = segment.count * segment.word_bytes;
        if (segment.kind == OTHER) {
            if (size > unused) return ACZ_DAMAGED;
            memcpy(file, others, (size_t)size);
            others += size;
            unused -= size;
        } else {
            result = segment_write(s, &segment, known->tables, file);
        }
        file += size;
        left -= size;
    }
    if (result) return result;
    if (r.at != r.size || unused || s->words != s->end) return ACZ_DAMAGED;
    for (uint32_t i = 0; i < s->lanes; i++)
        if (s->states[i] != LOWEST_STATE) return ACZ_DAMAGED;
    return ACZ_OK;
}

long long acz_size(const uint8_t *download, size_t size) {
    Header h;
    return header_read(download, size, &h) ? -1 : (long long)h.size;
}

int acz_unpack(const uint8_t *download, size_t size, uint8_t *file, size_t file_size) {
    Header h;
    uint8_t *bytes = NULL;
    Symbols *s = NULL;
    Known *known = NULL;
    int result = header_read(download, size, &h);
    if (result || h.size != file_size) return ACZ_DAMAGED;
    bytes = malloc(h.described + h.others + 1);
    s = malloc(sizeof *s);
    known = malloc(sizeof *known);
    if (known) known->tables = malloc(MOST_TABLES * sizeof *known->tables);
    result = bytes && s && known && known->tables ? ACZ_OK : ACZ_NO_MEMORY;
    if (!result) result = modelled(h.code, h.coded, bytes, h.described + h.others);
    if (!result) result = symbols_begin(s, h.code + h.coded, h.symbols, h.lane_bits);
    if (!result) result = rebuild(&h, bytes, s, known, file);
    if (!result && !has_hash(file, file_size, h.hash)) result = ACZ_WRONG_HASH;
    free(bytes);
    free(s);
    if (known) free(known->tables);
    free(known);
    return result;
}

const char *acz_message(int result) {
    switch (result) {
        case ACZ_OK: return "whole";
        case ACZ_NO_MEMORY: return "there is not enough memory";
        case ACZ_WRONG_HASH: return "what it holds does not have the hash that it says";
        default: return "it is damaged, or no .acz file of version 1";
    }
}

#ifdef ACZ_MAIN

static uint8_t *content_of(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    uint8_t *content = NULL;
    long length;
    if (!file) return NULL;
    if (!fseek(file, 0, SEEK_END) && (length = ftell(file)) >= 0 && !fseek(file, 0, SEEK_SET)) {
        *size = (size_t)length;
        content = malloc(*size + 1);
        if (content && fread(content, 1, *size, file) != *size) {
            free(content);
            content = NULL;
        }
    }
    fclose(file);
    return content;
}

static int write_whole(const char *path, const uint8_t *content, size_t size) {
    char *beside = malloc(strlen(path) + 6);
    FILE *file;
    int written = 0;
    if (!beside) return 0;
    strcpy(beside, path);
    strcat(beside, ".part");
    file = fopen(beside, "wb");
    if (file) {
        written = fwrite(content, 1, size, file) == size;
        written = !fclose(file) && written;
        written = written && !rename(beside, path);
        if (!written) remove(beside);
    }
    free(beside);
    return written;
}

int main(int count, char **arguments) {
    uint8_t *download, *file = NULL;
    size_t size = 0;
    long long file_size;
    int result;
    if (count != 3) {
        fprintf(stderr, "usage: acz FILE.acz FILE\n");
        return 2;
    }
    download = content_of(arguments[1], &size);
    if (!download) {
        fprintf(stderr, "error: %s: cannot be read\n", arguments[1]);
        return 2;
    }
    file_size = acz_size(download, size);
    result = file_size < 0 ? ACZ_DAMAGED : ACZ_OK;
    if (!result && !(file = malloc((size_t)file_size + 1))) result = ACZ_NO_MEMORY;
    if (!result) result = acz_unpack(download, size, file, (size_t)file_size);
    if (result)
        fprintf(stderr, "error: %s: %s\n", arguments[1], acz_message(result));
    else if (!write_whole(arguments[2], file, (size_t)file_size)) {
        fprintf(stderr, "error: %s: cannot be written\n", arguments[2]);
        result = 1;
    }
    free(download);
    free(file);
    return result ? 2 : 0;
}

#endif
