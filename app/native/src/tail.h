/* The dense tail of a split model, for one kind of processor; included once for each, with NAME, TARGET, LANES (floats in a
   register), ROWS and COLUMNS (registers in a tile) defined.

       logit = user_own + item_own + user_across . item_across + output(relu(... W relu(user_hidden + item_hidden) + b))

   Candidates go through all layers ROWS at a time, so that what is between the layers stays in the first-level cache,
   and the next candidates' states are fetched from memory meanwhile: see prefetch.h. */

#define VEC NAME(vec)
#define MASK NAME(mask)
typedef float VEC __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t MASK __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
#define AT(pointer) (*(VEC *)(pointer))
#define IN(pointer) (*(const VEC *)(pointer))
#define RELU(v) ((VEC)((MASK)(v) & ~((v) < 0))) /* NaN stays NaN: a broken model must be seen */
#define TILE (LANES * COLUMNS)
#define EACH _Pragma("clang loop unroll(full)") for

/* [ROWS, depth] times a layer's weights, plus its bias, ReLU: [ROWS, width]. Weights lie in panels of TILE columns. */
TARGET static void NAME(product)(const float *in, int64_t depth, const void *weights, const float *bias, float *out,
                                 int64_t width, Ahead *ahead) {
    const float *weight = weights;
    for (int64_t panel = 0; panel < width; panel += TILE, weight += TILE * depth) {
        VEC sum[ROWS][COLUMNS];
        EACH (int r = 0; r < ROWS; r++)
            EACH (int c = 0; c < COLUMNS; c++) sum[r][c] = IN(bias + panel + c * LANES);
        for (int64_t d = 0; d < depth; d++) {
            if (d % AHEAD_EVERY == 0) fetch_one(ahead);
            VEC w[COLUMNS];
            EACH (int c = 0; c < COLUMNS; c++) w[c] = IN(weight + d * TILE + c * LANES);
            EACH (int r = 0; r < ROWS; r++)
                EACH (int c = 0; c < COLUMNS; c++) sum[r][c] += w[c] * in[r * STRIDE + d];
        }
        EACH (int r = 0; r < ROWS; r++)
            EACH (int c = 0; c < COLUMNS; c++) AT(out + r * STRIDE + panel + c * LANES) = RELU(sum[r][c]);
    }
}

/* One candidate: the first hidden layer to `hidden`; returns all of the logit that needs no layer. */
TARGET static float NAME(first)(const Tail *tail, const float *item, const float *user, float *hidden) {
    int64_t h = tail->hidden, d = 0;
    for (; d + LANES <= h; d += LANES) {
        VEC sum = IN(item + d) + IN(user + d);
        AT(hidden + d) = RELU(sum);
    }
    for (; d < h; d++) hidden[d] = item[d] + user[d] < 0 ? 0 : item[d] + user[d];
    for (; d < tail->last_width; d++) hidden[d] = 0; /* where no layer follows, the output reads whole tiles of it */
    float own = (tail->item_own ? item[h + tail->across] : 0) + (tail->user_own ? user[h + tail->across] : 0);
    for (int64_t c = 0; c < tail->across; c++) own += item[h + c] * user[h + c];
    return own;
}

TARGET static float NAME(output)(const Tail *tail, const float *hidden) {
    VEC sum = {0};
    float out = tail->output_bias;
    for (int64_t d = 0; d < tail->last_width; d += LANES) sum += IN(hidden + d) * IN(tail->output + d);
    for (int lane = 0; lane < LANES; lane++) out += sum[lane];
    return out;
}

TARGET static void NAME(logits)(const Tail *tail, const float *states_CD, const int64_t *row_N, int64_t n,
                                const float *user_D, float *logit_N) {
    float one[ROWS * STRIDE] __attribute__((aligned(64))), two[ROWS * STRIDE] __attribute__((aligned(64)));
    for (int64_t start = 0; start < n; start += ROWS) {
        int64_t have = n - start < ROWS ? n - start : ROWS;
        float own[ROWS], *in = one, *out = two;
        for (int64_t r = 0; r < ROWS; r++) { /* what is lacking in the last tile is the last candidate again */
            const float *item = states_CD + tail->width * row_N[start + (r < have ? r : have - 1)];
            own[r] = NAME(first)(tail, item, user_D, in + r * STRIDE);
        }
        Ahead ahead = looking_ahead(states_CD, tail->width * 4, row_N, start + ROWS, start + 2 * ROWS, n);
        int64_t depth = tail->hidden;
        for (int64_t l = 0; l < tail->layers; l++) {
            NAME(product)(in, depth, tail->layer[l].weight, tail->layer[l].bias, out, tail->layer[l].padded, &ahead);
            depth = tail->layer[l].width;
            float *swapped = in;
            in = out;
            out = swapped;
        }
        fetch_rest(&ahead);
        for (int64_t r = 0; r < have; r++)
            logit_N[start + r] = own[r] + (tail->last_width ? NAME(output)(tail, in + r * STRIDE) : 0);
    }
}

#undef VEC
#undef MASK
#undef AT
#undef IN
#undef RELU
#undef TILE
#undef EACH
#undef NAME
#undef TARGET
#undef LANES
#undef ROWS
#undef COLUMNS
