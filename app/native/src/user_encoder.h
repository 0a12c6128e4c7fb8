/* One user's slots to the user state, for models whose user state is an affine map of the user's field vectors and numbers,
   plus the crosses within the user (`CtrModel.user_affine`; app/models/side_input.py explains each step):

       fields_F = sum over a field's slots of x v
       state_D  = bias_D + weight_DI [fields, flattened | numbers],  state_last += 1/2 (|S|^2 - sum_f |e_f|^2)

   S are the state's columns from `cross_start` on; e_f is a field vector without its first-order weight. */

enum { MAX_INPUTS = 4096, MAX_TRANSFORMS = 8 };
enum { TRANSFORM_LOG1P = 1, TRANSFORM_SQRT, TRANSFORM_SQUARE, TRANSFORM_STANDARDISE };

typedef struct {
    int64_t slot;
    int64_t bucket_row; /* first of the field's bucket rows in the table; -1 for a field without buckets */
    int64_t borders;    /* number of bucket borders */
    int64_t bucket_field;
    int64_t transforms[MAX_TRANSFORMS]; /* TRANSFORM_*, or 0 */
    const float *border;                /* [borders], ascending, padded with infinity */
    float mean, deviation;
} NumericField;

typedef struct {
    const int64_t *vocabulary;   /* [vocabulary_size], ascending */
    const float *table;          /* [rows, vector_width] */
    const int64_t *oov_row;      /* [slots]: the row of an unseen key */
    const int64_t *field;        /* [slots]: the field that a slot is summed into */
    const NumericField *numeric; /* [numerics] */
    const float *weight;         /* [inputs, state_width] */
    const float *bias;           /* [state_width] */
    int64_t vocabulary_size;
    int64_t first_vocabulary_row;
    int64_t vector_width;
    int64_t slots, fields, numerics;
    int64_t state_width;
    int64_t cross_start, cross_count; /* the state's columns that are S */
    float clip;                       /* limit of standardised numbers */
} UserEncoder;

static int64_t table_row(const UserEncoder *encoder, int64_t slot, int64_t key) {
    int64_t low = 0, count = encoder->vocabulary_size;
    while (count > 1) {
        int64_t half = count / 2;
        low += encoder->vocabulary[low + half] <= key ? half : 0;
        count -= half;
    }
    int known = encoder->vocabulary_size && encoder->vocabulary[low] == key;
    return known ? low + encoder->first_vocabulary_row : encoder->oov_row[slot];
}

static float transform(const NumericField *numeric, float x, float clip) {
    for (int step = 0; step < MAX_TRANSFORMS; step++) {
        float magnitude = x < 0 ? -x : x, sign = x < 0 ? -1.0f : 1.0f;
        switch (numeric->transforms[step]) {
        case TRANSFORM_LOG1P: x = sign * log1pf(magnitude); break;
        case TRANSFORM_SQRT: x = sign * sqrtf(magnitude); break;
        case TRANSFORM_SQUARE: x = x * x; break;
        case TRANSFORM_STANDARDISE:
            x = (x - numeric->mean) / numeric->deviation;
            x = x > clip ? clip : x < -clip ? -clip : x;
        }
    }
    if (x != x) return 0; /* missing: the bucket says so */
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

static void add_row(const UserEncoder *encoder, float *field, int64_t row, float x) {
    const float *vector = encoder->table + row * encoder->vector_width;
    for (int64_t column = 0; column < encoder->vector_width; column++) field[column] += x * vector[column];
}

/* Encode one user's slots, keys and values [slots], to the state [state_width]. */
EXPORT void ctr_encode_user(const UserEncoder *encoder, const int64_t *key_S, const float *value_S, float *state_D) {
    float input_I[MAX_INPUTS] = {0};
    float x_S[MAX_INPUTS];
    memcpy(x_S, value_S, (size_t)encoder->slots * sizeof(float));
    float *number_M = input_I + encoder->fields * encoder->vector_width;
    for (int64_t m = 0; m < encoder->numerics; m++) {
        const NumericField *numeric = encoder->numeric + m;
        float raw = value_S[numeric->slot];
        number_M[m] = x_S[numeric->slot] = transform(numeric, raw, encoder->clip);
        if (numeric->bucket_row < 0) continue;
        int64_t bucket = raw == raw; /* 0 is the bucket of missing numbers */
        for (int64_t q = 0; q < numeric->borders; q++) bucket += raw >= numeric->border[q];
        float *field = input_I + numeric->bucket_field * encoder->vector_width;
        add_row(encoder, field, numeric->bucket_row + bucket, 1.0f);
    }
    for (int64_t s = 0; s < encoder->slots; s++) {
        if (x_S[s] == 0) continue;
        float *field = input_I + encoder->field[s] * encoder->vector_width;
        add_row(encoder, field, table_row(encoder, s, key_S[s]), x_S[s]);
    }

    memcpy(state_D, encoder->bias, (size_t)encoder->state_width * sizeof(float));
    int64_t inputs = encoder->fields * encoder->vector_width + encoder->numerics;
    for (int64_t i = 0; i < inputs; i++) {
        const float *column = encoder->weight + i * encoder->state_width;
        __builtin_prefetch(column + 2 * encoder->state_width);
        if (input_I[i] == 0) continue;
        for (int64_t d = 0; d < encoder->state_width; d++) state_D[d] += input_I[i] * column[d];
    }
    double crosses = 0; /* double, because it is a small difference of large sums */
    for (int64_t k = 0; k < encoder->cross_count; k++) {
        double sum = state_D[encoder->cross_start + k];
        crosses += sum * sum;
        for (int64_t f = 0; f < encoder->fields; f++) {
            double component = input_I[f * encoder->vector_width + 1 + k];
            crosses -= component * component;
        }
    }
    state_D[encoder->state_width - 1] += (float)(0.5 * crosses);
}
