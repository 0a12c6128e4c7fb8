/* The scorer of a split model: item states to sorted probabilities, for models whose score is a small MLP over the sum of the
   user's and the item's half of the first layer, plus a dot product and two biases (`CtrModel.top_mlp`):

       logit = user_bias + item_bias + user_cross . item_cross + output(relu(... W relu(user_hidden + item_hidden) + b))

   A state's columns are [hidden | cross | bias]. */

#include "isa.h"
#include "sort_scores.h"

enum { MAX_LAYERS = 8, MAX_WIDTH = 1024 };
enum { ROW_STRIDE = MAX_WIDTH + 16 }; /* floats between two candidates in the buffers between layers */

typedef struct {
    const void *weight; /* panels [padded / columns, depth, columns]; bfloat16 [padded / columns, depth / 2, columns, 2] */
    const float *bias;  /* [padded] */
    int64_t width, padded;
} Layer;

typedef struct {
    int64_t hidden, cross, user_bias, item_bias; /* columns of the states; a bias has 1 or 0 */
    int64_t item_width;                          /* columns of an item state in all */
    int64_t layers;                              /* number of entries of `layer` in use */
    int64_t output_width;                        /* entries of `output_weight`, padded; 0 without an output layer */
    float output_bias;
    float calibration_scale, calibration_offset; /* p = sigmoid(scale logit + offset) */
    const float *output_weight;                  /* [output_width] */
    Layer layer[MAX_LAYERS];
} TopMlp;

#include "prefetch.h"

#define NAME(name) base_##name
#define TARGET
#define LANES 4
#define ROWS 6
#define COLUMNS 2
#include "top_mlp_float32.h"

#ifdef __x86_64__
#define NAME(name) avx2_##name
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define ROWS 6
#define COLUMNS 2
#include "top_mlp_float32.h"

#define NAME(name) avx512_##name
#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma,no-prefer-256-bit")))
#define LANES 16
#define ROWS 8
#define COLUMNS 2
#include "top_mlp_float32.h"
#include "top_mlp_bfloat16.h"
#endif

/* Score the candidates in N rows of a table of item states. Write their probabilities, highest first, and the position of
   each among the rows. The states are float32, or bfloat16 for ISA_BFLOAT16. */
EXPORT void ctr_ranked(const TopMlp *mlp, int64_t isa, const void *states_CD, const int64_t *row_N, int64_t n,
                       const float *user_D, float *score_N, int64_t *position_N, uint64_t *scratch_2N) {
    switch (isa) {
#ifdef __x86_64__
    case ISA_BFLOAT16: bfloat16_logits(mlp, states_CD, row_N, n, user_D, score_N); break;
    case ISA_AVX512: avx512_logits(mlp, states_CD, row_N, n, user_D, score_N); break;
    case ISA_AVX2: avx2_logits(mlp, states_CD, row_N, n, user_D, score_N); break;
#endif
    default: base_logits(mlp, states_CD, row_N, n, user_D, score_N);
    }
    sort_scores(score_N, n, mlp->calibration_scale, mlp->calibration_offset, scratch_2N, score_N, position_N);
}
