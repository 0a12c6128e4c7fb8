/* The scorer of top_mlp.h with item states and weights in bfloat16, for processors that multiply pairs of these (AVX-512
   BF16): it reads half the memory and does twice the products a cycle. Sums, biases, crosses and output are float32. */

#include <immintrin.h>

#define BF16 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,fma,no-prefer-256-bit")))
enum { BF16_LANES = 16, BF16_ROWS = 8, BF16_COLUMNS = 2, BF16_PANEL = BF16_LANES * BF16_COLUMNS };
#define UNROLLED_FOR _Pragma("clang loop unroll(full)") for

/* Multiply [ROWS, pairs, 2] by a layer's weights, add its bias and apply ReLU: float32 [ROWS, width]. A panel of weights is
   [pairs, PANEL, 2]. */
BF16 static void bfloat16_layer(const uint16_t *in, int64_t pairs, const uint16_t *weight, const float *bias, float *out,
                                int64_t width, Prefetch *prefetch) {
    for (int64_t panel = 0; panel < width; panel += BF16_PANEL, weight += 2 * BF16_PANEL * pairs) {
        __m512 sum[BF16_ROWS][BF16_COLUMNS];
        UNROLLED_FOR (int r = 0; r < BF16_ROWS; r++)
            UNROLLED_FOR (int c = 0; c < BF16_COLUMNS; c++) sum[r][c] = _mm512_loadu_ps(bias + panel + c * BF16_LANES);
        for (int64_t d = 0; d < pairs; d++) {
            if (d % PREFETCH_EVERY == 0) prefetch_line(prefetch);
            __m512i w[BF16_COLUMNS];
            UNROLLED_FOR (int c = 0; c < BF16_COLUMNS; c++)
                w[c] = _mm512_loadu_si512(weight + 2 * (d * BF16_PANEL + c * BF16_LANES));
            UNROLLED_FOR (int r = 0; r < BF16_ROWS; r++) {
                int32_t pair;
                memcpy(&pair, in + r * ROW_STRIDE + 2 * d, 4);
                __m512i broadcast = _mm512_set1_epi32(pair);
                UNROLLED_FOR (int c = 0; c < BF16_COLUMNS; c++)
                    sum[r][c] = _mm512_dpbf16_ps(sum[r][c], (__m512bh)broadcast, (__m512bh)w[c]);
            }
        }
        UNROLLED_FOR (int r = 0; r < BF16_ROWS; r++)
            UNROLLED_FOR (int c = 0; c < BF16_COLUMNS; c++) {
                __mmask16 negative = _mm512_cmp_ps_mask(sum[r][c], _mm512_setzero_ps(), _CMP_LT_OQ); /* NaN stays NaN */
                _mm512_storeu_ps(out + r * ROW_STRIDE + panel + c * BF16_LANES,
                                 _mm512_mask_mov_ps(sum[r][c], negative, _mm512_setzero_ps()));
            }
    }
}

static inline float float32_of(uint16_t bfloat16) {
    uint32_t bits = (uint32_t)bfloat16 << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* Round float32 [depth] to bfloat16 [2 pairs], the last of an odd number being 0. `in` may be read a register further. */
BF16 static void round_to_bfloat16(const float *in, int64_t depth, uint16_t *out) {
    int64_t d = 0;
    for (; d + BF16_LANES <= depth; d += BF16_LANES)
        _mm256_storeu_si256((__m256i *)(out + d), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(in + d)));
    __mmask16 rest = (__mmask16)((1u << (depth - d)) - 1);
    __m256i last = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(rest, in + d));
    if (depth > d) _mm256_storeu_si256((__m256i *)(out + d), last);
}

BF16 static float bfloat16_first_layer(const TopMlp *mlp, const uint16_t *item, const float *user, float *hidden) {
    int64_t h = mlp->hidden, d = 0;
    for (; d + BF16_LANES <= h; d += BF16_LANES) {
        __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(item + d))), 16);
        __m512 sum = _mm512_add_ps(_mm512_castsi512_ps(bits), _mm512_loadu_ps(user + d));
        __mmask16 negative = _mm512_cmp_ps_mask(sum, _mm512_setzero_ps(), _CMP_LT_OQ);
        _mm512_storeu_ps(hidden + d, _mm512_mask_mov_ps(sum, negative, _mm512_setzero_ps()));
    }
    for (; d < h; d++) {
        float sum = float32_of(item[d]) + user[d];
        hidden[d] = sum < 0 ? 0 : sum;
    }
    for (; d < mlp->output_width; d++) hidden[d] = 0;
    float logit = (mlp->item_bias ? float32_of(item[h + mlp->cross]) : 0) + (mlp->user_bias ? user[h + mlp->cross] : 0);
    for (int64_t c = 0; c < mlp->cross; c++) logit += float32_of(item[h + c]) * user[h + c];
    return logit;
}

BF16 static void bfloat16_logits(const TopMlp *mlp, const uint16_t *states_CD, const int64_t *row_N, int64_t n,
                                 const float *user_D, float *logit_N) {
    float hidden[BF16_ROWS * ROW_STRIDE] __attribute__((aligned(64)));
    uint16_t in[BF16_ROWS * ROW_STRIDE] __attribute__((aligned(64)));
    for (int64_t start = 0; start < n; start += BF16_ROWS) {
        int64_t count = n - start < BF16_ROWS ? n - start : BF16_ROWS;
        float logit[BF16_ROWS];
        for (int64_t r = 0; r < BF16_ROWS; r++) {
            const uint16_t *item = states_CD + mlp->item_width * row_N[start + (r < count ? r : count - 1)];
            logit[r] = bfloat16_first_layer(mlp, item, user_D, hidden + r * ROW_STRIDE);
        }
        Prefetch prefetch =
            prefetch_rows(states_CD, mlp->item_width * 2, row_N, start + BF16_ROWS, start + 2 * BF16_ROWS, n);
        int64_t depth = mlp->hidden;
        for (int64_t l = 0; l < mlp->layers; l++) {
            const Layer *layer = mlp->layer + l;
            for (int64_t r = 0; r < BF16_ROWS; r++)
                round_to_bfloat16(hidden + r * ROW_STRIDE, depth, in + r * ROW_STRIDE);
            bfloat16_layer(in, (depth + 1) / 2, layer->weight, layer->bias, hidden, layer->padded, &prefetch);
            depth = layer->width;
        }
        prefetch_rest(&prefetch);
        for (int64_t r = 0; r < count; r++)
            logit_N[start + r] = logit[r] + (mlp->output_width ? avx512_output(mlp, hidden + r * ROW_STRIDE) : 0);
    }
}
#undef UNROLLED_FOR
