/* The scorer of top_mlp.h in float32 for one instruction set. top_mlp.h includes this file once for each, with NAME, TARGET,
   LANES (floats in a register), ROWS (candidates in a tile) and COLUMNS (registers in a tile) defined.

   Candidates go through all layers ROWS at a time, so that what is between the layers stays in the first-level cache. The
   next candidates' states are fetched from memory meanwhile: see prefetch.h. */

#define VECTOR NAME(vector)
#define MASK NAME(mask)
typedef float VECTOR __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t MASK __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
#define STORE(pointer) (*(VECTOR *)(pointer))
#define LOAD(pointer) (*(const VECTOR *)(pointer))
#define RELU(v) ((VECTOR)((MASK)(v) & ~((v) < 0))) /* NaN stays NaN: a broken model must be noticed */
#define PANEL (LANES * COLUMNS)
#define UNROLLED_FOR _Pragma("clang loop unroll(full)") for

/* Multiply [ROWS, depth] by a layer's weights, add its bias and apply ReLU: [ROWS, width]. */
TARGET static void NAME(layer)(const float *in, int64_t depth, const void *weights, const float *bias, float *out,
                               int64_t width, Prefetch *prefetch) {
    const float *weight = weights;
    for (int64_t panel = 0; panel < width; panel += PANEL, weight += PANEL * depth) {
        VECTOR sum[ROWS][COLUMNS];
        UNROLLED_FOR (int r = 0; r < ROWS; r++)
            UNROLLED_FOR (int c = 0; c < COLUMNS; c++) sum[r][c] = LOAD(bias + panel + c * LANES);
        for (int64_t d = 0; d < depth; d++) {
            if (d % PREFETCH_EVERY == 0) prefetch_line(prefetch);
            VECTOR w[COLUMNS];
            UNROLLED_FOR (int c = 0; c < COLUMNS; c++) w[c] = LOAD(weight + d * PANEL + c * LANES);
            UNROLLED_FOR (int r = 0; r < ROWS; r++)
                UNROLLED_FOR (int c = 0; c < COLUMNS; c++) sum[r][c] += w[c] * in[r * ROW_STRIDE + d];
        }
        UNROLLED_FOR (int r = 0; r < ROWS; r++)
            UNROLLED_FOR (int c = 0; c < COLUMNS; c++)
                STORE(out + r * ROW_STRIDE + panel + c * LANES) = RELU(sum[r][c]);
    }
}

/* Write one candidate's first hidden layer to `hidden`. Return the part of its logit that goes through no layer. */
TARGET static float NAME(first_layer)(const TopMlp *mlp, const float *item, const float *user, float *hidden) {
    int64_t h = mlp->hidden, d = 0;
    for (; d + LANES <= h; d += LANES) {
        VECTOR sum = LOAD(item + d) + LOAD(user + d);
        STORE(hidden + d) = RELU(sum);
    }
    for (; d < h; d++) hidden[d] = item[d] + user[d] < 0 ? 0 : item[d] + user[d];
    for (; d < mlp->output_width; d++) hidden[d] = 0; /* without further layers the output reads whole panels of it */
    float logit = (mlp->item_bias ? item[h + mlp->cross] : 0) + (mlp->user_bias ? user[h + mlp->cross] : 0);
    for (int64_t c = 0; c < mlp->cross; c++) logit += item[h + c] * user[h + c];
    return logit;
}

TARGET static float NAME(output)(const TopMlp *mlp, const float *hidden) {
    VECTOR sum = {0};
    float out = mlp->output_bias;
    for (int64_t d = 0; d < mlp->output_width; d += LANES) sum += LOAD(hidden + d) * LOAD(mlp->output_weight + d);
    for (int lane = 0; lane < LANES; lane++) out += sum[lane];
    return out;
}

TARGET static void NAME(logits)(const TopMlp *mlp, const float *states_CD, const int64_t *row_N, int64_t n,
                                const float *user_D, float *logit_N) {
    float buffer_a[ROWS * ROW_STRIDE] __attribute__((aligned(64))), buffer_b[ROWS * ROW_STRIDE] __attribute__((aligned(64)));
    for (int64_t start = 0; start < n; start += ROWS) {
        int64_t count = n - start < ROWS ? n - start : ROWS;
        float logit[ROWS], *in = buffer_a, *out = buffer_b;
        for (int64_t r = 0; r < ROWS; r++) { /* the last tile is filled up with the last candidate */
            const float *item = states_CD + mlp->item_width * row_N[start + (r < count ? r : count - 1)];
            logit[r] = NAME(first_layer)(mlp, item, user_D, in + r * ROW_STRIDE);
        }
        Prefetch prefetch = prefetch_rows(states_CD, mlp->item_width * 4, row_N, start + ROWS, start + 2 * ROWS, n);
        int64_t depth = mlp->hidden;
        for (int64_t l = 0; l < mlp->layers; l++) {
            const Layer *layer = mlp->layer + l;
            NAME(layer)(in, depth, layer->weight, layer->bias, out, layer->padded, &prefetch);
            depth = layer->width;
            float *swapped = in;
            in = out;
            out = swapped;
        }
        prefetch_rest(&prefetch);
        for (int64_t r = 0; r < count; r++)
            logit_N[start + r] = logit[r] + (mlp->output_width ? NAME(output)(mlp, in + r * ROW_STRIDE) : 0);
    }
}

#undef VECTOR
#undef MASK
#undef STORE
#undef LOAD
#undef RELU
#undef PANEL
#undef UNROLLED_FOR
#undef NAME
#undef TARGET
#undef LANES
#undef ROWS
#undef COLUMNS
