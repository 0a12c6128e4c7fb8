/* What a request needs between its bytes and its answer's bytes, where one call for hundreds of ids or candidates is worth
   hundreds of calls. No Python here: plain pointers and sizes, which app/native checks and owns. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#define EXPORT __attribute__((visibility("default")))

#include "hash.h"
#include "ids.h"
#include "index.h"
#include "write_items.h"
#include "sort.h"
#include "user.h"

enum { MAX_LAYERS = 8, MAX_WIDTH = 1024, STRIDE = MAX_WIDTH + 16 };

typedef struct {
    const void *weight; /* panels [padded / tile, depth, tile]; of bfloat16 [padded / tile, depth / 2, tile, 2] */
    const float *bias;   /* [padded] */
    int64_t width, padded;
} Layer;

typedef struct {
    int64_t hidden, across, user_own, item_own; /* states are [hidden | across | own], the last of them 0 or 1 column */
    int64_t width, layers, last_width;          /* of an item state; of the output, padded */
    float output_bias, a, b;                           /* p = sigmoid(a logit + b) */
    const float *output;                               /* [last_width] */
    Layer layer[MAX_LAYERS];
} Tail;

#include "prefetch.h"

#define NAME(name) base_##name
#define TARGET
#define LANES 4
#define ROWS 6
#define COLUMNS 2
#include "tail.h"

#ifdef __x86_64__
#define NAME(name) avx2_##name
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define ROWS 6
#define COLUMNS 2
#include "tail.h"

#define NAME(name) avx512_##name
#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma,no-prefer-256-bit")))
#define LANES 16
#define ROWS 8
#define COLUMNS 2
#include "tail.h"
#include "tail_bf16.h"
#endif

/* Kinds of a tail: float32 on any processor, with AVX2, with AVX-512; item states and weights in bfloat16. */
enum { BASE, AVX2, AVX512, BFLOAT16 };

#ifdef __x86_64__
/* Which register sets the system saves when it changes tasks: without that a processor's own word is worth nothing. */
static uint64_t saved_registers(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}
#endif

/* Which kinds this processor can run, a bit for each. */
EXPORT int64_t ctr_kinds(void) {
    int64_t kinds = 1 << BASE;
#ifdef __x86_64__
    enum { XSAVE = 1 << 27, FMA = 1 << 12, HAS_AVX2 = 1 << 5, F = 1 << 16, DQ = 1 << 17, BW = 1 << 30, HAS_BF16 = 1 << 5 };
    enum { YMM = 0x6, ZMM = 0xe6 };
    const uint32_t avx512 = F | DQ | BW | 1u << 31; /* the last is VL */
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (XSAVE | FMA)) != (XSAVE | FMA)) return kinds;
    uint64_t saved = saved_registers();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & HAS_AVX2) || (saved & YMM) != YMM) return kinds;
    kinds |= 1 << AVX2;
    if ((b & avx512) != avx512 || (saved & ZMM) != ZMM) return kinds;
    kinds |= 1 << AVX512;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && a & HAS_BF16) kinds |= 1 << BFLOAT16;
#endif
    return kinds;
}

/* Columns of a panel of weights. */
EXPORT int64_t ctr_tile(int64_t kind) { return kind >= AVX512 ? 32 : kind == AVX2 ? 16 : 8; }

/* Probabilities of the candidates in N rows of a table of item states, highest first, and the place of each among them.
   The states are float32, or bfloat16 for a tail of that kind. */
EXPORT void ctr_rank(const Tail *tail, int64_t kind, const void *states_CD, const int64_t *row_N, int64_t n,
                     const float *user_D, float *score_N, int64_t *place_N, uint64_t *scratch_2N) {
    switch (kind) {
#ifdef __x86_64__
    case BFLOAT16: bf16_logits(tail, states_CD, row_N, n, user_D, score_N); break;
    case AVX512: avx512_logits(tail, states_CD, row_N, n, user_D, score_N); break;
    case AVX2: avx2_logits(tail, states_CD, row_N, n, user_D, score_N); break;
#endif
    default: base_logits(tail, states_CD, row_N, n, user_D, score_N);
    }
    ordered(score_N, n, tail->a, tail->b, scratch_2N, score_N, place_N);
}
