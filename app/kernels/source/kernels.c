/* What a request needs between its bytes and its answer's bytes, where one call for hundreds of ids or candidates is worth
   hundreds of calls. No Python here: plain pointers and sizes, which app/kernels checks and owns. */

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
#include "answer.h"
#include "order.h"
#include "user.h"

enum { MAX_LAYERS = 8, MAX_WIDTH = 1024, STRIDE = MAX_WIDTH + 16 };

typedef struct {
    const float *weight; /* panels [padded / tile, depth, tile] */
    const float *bias;   /* [padded] */
    int64_t width, padded;
} Layer;

typedef struct {
    int64_t hidden, across, width, layers, last_width; /* states are [hidden | across | 1]; last_width of the output, padded */
    float output_bias, a, b;                           /* p = sigmoid(a logit + b) */
    const float *output;                               /* [last_width] */
    Layer layer[MAX_LAYERS];
} Tail;

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
#endif

typedef void (*Logits)(const Tail *, const float *, const int64_t *, int64_t, const float *, float *);

#ifdef __x86_64__
/* Which register sets the system saves when it changes tasks: without that a processor's own word is worth nothing. */
static uint64_t saved_registers(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}
#endif

/* The best that this processor can do: 0 base, 1 AVX2, 2 AVX-512. */
EXPORT int64_t ctr_level(void) {
#ifdef __x86_64__
    enum { XSAVE = 1 << 27, FMA = 1 << 12, AVX2 = 1 << 5, F = 1 << 16, DQ = 1 << 17, BW = 1 << 30, YMM = 0x6, ZMM = 0xe6 };
    const uint32_t avx512 = F | DQ | BW | 1u << 31; /* the last is VL */
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (XSAVE | FMA)) != (XSAVE | FMA)) return 0;
    uint64_t saved = saved_registers();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & AVX2) || (saved & YMM) != YMM) return 0;
    return (b & avx512) == avx512 && (saved & ZMM) == ZMM ? 2 : 1;
#endif
    return 0;
}

/* Columns of a panel of weights at a level. */
EXPORT int64_t ctr_tile(int64_t level) { return level == 2 ? 32 : level == 1 ? 16 : 8; }

/* Probabilities of the candidates in N rows of a table of item states, highest first, and the place of each among them. */
EXPORT void ctr_rank(const Tail *tail, int64_t level, const float *states_CD, const int64_t *row_N, int64_t n,
                     const float *user_D, float *score_N, int64_t *place_N, uint64_t *scratch_2N) {
#ifdef __x86_64__
    Logits logits = level == 2 ? avx512_logits : level == 1 ? avx2_logits : base_logits;
#else
    Logits logits = base_logits;
    (void)level;
#endif
    logits(tail, states_CD, row_N, n, user_D, score_N);
    ordered(score_N, n, tail->a, tail->b, scratch_2N, score_N, place_N);
}
