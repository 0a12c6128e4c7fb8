/* The tail of tail.h with item states and weights in bfloat16, for processors that multiply pairs of these (AVX-512 BF16):
   half the memory to read and twice the products a cycle. Sums, biases, the crosses and the output are float32. */

#include <immintrin.h>

#define BF16 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,fma,no-prefer-256-bit")))
enum { BF16_LANES = 16, BF16_ROWS = 8, BF16_COLUMNS = 2, BF16_TILE = BF16_LANES * BF16_COLUMNS };
#define EACH _Pragma("clang loop unroll(full)") for

/* [ROWS, pairs, 2] times a layer's weights, plus its bias, ReLU: float32 [ROWS, width]. Panels are [pairs, TILE, 2]. */
BF16 static void bf16_product(const uint16_t *in, int64_t pairs, const uint16_t *weight, const float *bias, float *out,
                              int64_t width, Ahead *ahead) {
    for (int64_t panel = 0; panel < width; panel += BF16_TILE, weight += 2 * BF16_TILE * pairs) {
        __m512 sum[BF16_ROWS][BF16_COLUMNS];
        EACH (int r = 0; r < BF16_ROWS; r++)
            EACH (int c = 0; c < BF16_COLUMNS; c++) sum[r][c] = _mm512_loadu_ps(bias + panel + c * BF16_LANES);
        for (int64_t d = 0; d < pairs; d++) {
            if (d % AHEAD_EVERY == 0) fetch_one(ahead);
            __m512i w[BF16_COLUMNS];
            EACH (int c = 0; c < BF16_COLUMNS; c++)
                w[c] = _mm512_loadu_si512(weight + 2 * (d * BF16_TILE + c * BF16_LANES));
            EACH (int r = 0; r < BF16_ROWS; r++) {
                int32_t pair;
                memcpy(&pair, in + r * STRIDE + 2 * d, 4);
                __m512i twice = _mm512_set1_epi32(pair);
                EACH (int c = 0; c < BF16_COLUMNS; c++)
                    sum[r][c] = _mm512_dpbf16_ps(sum[r][c], (__m512bh)twice, (__m512bh)w[c]);
            }
        }
        EACH (int r = 0; r < BF16_ROWS; r++)
            EACH (int c = 0; c < BF16_COLUMNS; c++) {
                __mmask16 negative = _mm512_cmp_ps_mask(sum[r][c], _mm512_setzero_ps(), _CMP_LT_OQ); /* NaN stays */
                _mm512_storeu_ps(out + r * STRIDE + panel + c * BF16_LANES,
                                 _mm512_mask_mov_ps(sum[r][c], negative, _mm512_setzero_ps()));
            }
    }
}

static inline float widened(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* float32 [depth] to bfloat16 [2 pairs], the last of an odd number 0. `in` may be read up to a register further. */
BF16 static void narrowed(const float *in, int64_t depth, uint16_t *out) {
    int64_t d = 0;
    for (; d + BF16_LANES <= depth; d += BF16_LANES)
        _mm256_storeu_si256((__m256i *)(out + d), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(in + d)));
    __mmask16 rest = (__mmask16)((1u << (depth - d)) - 1);
    __m256i last = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(rest, in + d));
    if (depth > d) _mm256_storeu_si256((__m256i *)(out + d), last);
}

BF16 static float bf16_first(const Tail *tail, const uint16_t *item, const float *user, float *hidden) {
    int64_t h = tail->hidden, d = 0;
    for (; d + BF16_LANES <= h; d += BF16_LANES) {
        __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(item + d))), 16);
        __m512 sum = _mm512_add_ps(_mm512_castsi512_ps(wide), _mm512_loadu_ps(user + d));
        __mmask16 negative = _mm512_cmp_ps_mask(sum, _mm512_setzero_ps(), _CMP_LT_OQ);
        _mm512_storeu_ps(hidden + d, _mm512_mask_mov_ps(sum, negative, _mm512_setzero_ps()));
    }
    for (; d < h; d++) {
        float sum = widened(item[d]) + user[d];
        hidden[d] = sum < 0 ? 0 : sum;
    }
    for (; d < tail->last_width; d++) hidden[d] = 0;
    float own = (tail->item_own ? widened(item[h + tail->across]) : 0) + (tail->user_own ? user[h + tail->across] : 0);
    for (int64_t c = 0; c < tail->across; c++) own += widened(item[h + c]) * user[h + c];
    return own;
}

BF16 static void bf16_logits(const Tail *tail, const uint16_t *states_CD, const int64_t *row_N, int64_t n,
                             const float *user_D, float *logit_N) {
    float hidden[BF16_ROWS * STRIDE] __attribute__((aligned(64)));
    uint16_t in[BF16_ROWS * STRIDE] __attribute__((aligned(64)));
    for (int64_t start = 0; start < n; start += BF16_ROWS) {
        int64_t have = n - start < BF16_ROWS ? n - start : BF16_ROWS;
        float own[BF16_ROWS];
        for (int64_t r = 0; r < BF16_ROWS; r++) {
            const uint16_t *item = states_CD + tail->width * row_N[start + (r < have ? r : have - 1)];
            own[r] = bf16_first(tail, item, user_D, hidden + r * STRIDE);
        }
        Ahead ahead = looking_ahead(states_CD, tail->width * 2, row_N, start + BF16_ROWS, start + 2 * BF16_ROWS, n);
        int64_t depth = tail->hidden;
        for (int64_t l = 0; l < tail->layers; l++) {
            const Layer *layer = tail->layer + l;
            for (int64_t r = 0; r < BF16_ROWS; r++) narrowed(hidden + r * STRIDE, depth, in + r * STRIDE);
            bf16_product(in, (depth + 1) / 2, (const uint16_t *)layer->weight, layer->bias, hidden, layer->padded, &ahead);
            depth = layer->width;
        }
        fetch_rest(&ahead);
        for (int64_t r = 0; r < have; r++)
            logit_N[start + r] = own[r] + (tail->last_width ? avx512_output(tail, hidden + r * STRIDE) : 0);
    }
}
#undef EACH
