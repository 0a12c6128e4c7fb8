/* One user's slots to the user state, where that is linear in the field vectors but for the crosses within the user:

       fields_F = sum over a field's slots of x v           (app/models/side_input.py, where each step is explained)
       state_D  = offset_D + map_DI [fields, flattened | numbers],  state_last += 1/2 (|S|^2 - sum_f |e_f|^2)

   S are the columns of the state from `crossed` on; e_f is a field vector without its first-order weight. */

enum { MAX_INPUTS = 4096, MAX_STEPS = 8, LOG1P = 1, SQRT, SQUARE, STANDARDISE };

typedef struct {
    int64_t slot, bucket_row, borders; /* bucket_row: -1 for a number without buckets */
    int64_t bucket_field;
    int64_t steps[MAX_STEPS];
    const float *border; /* [borders], ascending, padded with infinity */
    float mean, deviation;
} Number;

typedef struct {
    const int64_t *vocabulary; /* [keys], ascending */
    const float *table;        /* [rows, width] */
    const int64_t *oov, *field; /* [slots]: the row of an unseen key; the field a slot is summed into */
    const Number *number;      /* [numbers] */
    const float *map, *offset; /* [inputs, state], [state] */
    int64_t keys, first_row, width, slots, fields, numbers, state, crossed, crosses;
    float clip;
} User;

static int64_t row_of(const User *user, int64_t slot, int64_t key) {
    int64_t low = 0, count = user->keys;
    while (count > 1) {
        int64_t half = count / 2;
        low += user->vocabulary[low + half] <= key ? half : 0;
        count -= half;
    }
    return user->keys && user->vocabulary[low] == key ? low + user->first_row : user->oov[slot];
}

static float scaled(const Number *number, float x, float clip) {
    for (int step = 0; step < MAX_STEPS; step++) {
        float size = x < 0 ? -x : x, sign = x < 0 ? -1.0f : 1.0f;
        switch (number->steps[step]) {
        case LOG1P: x = sign * log1pf(size); break;
        case SQRT: x = sign * sqrtf(size); break;
        case SQUARE: x = x * x; break;
        case STANDARDISE:
            x = (x - number->mean) / number->deviation;
            x = x > clip ? clip : x < -clip ? -clip : x;
        }
    }
    if (x != x) return 0; /* missing: the bucket says so */
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

static void added(const User *user, float *field, int64_t row, float x) {
    const float *vector = user->table + row * user->width;
    for (int64_t column = 0; column < user->width; column++) field[column] += x * vector[column];
}

/* Slots of one user, keys and values [slots], to the state [state]. */
EXPORT void ctr_user(const User *user, const int64_t *key_S, const float *value_S, float *state_D) {
    float input_I[MAX_INPUTS] = {0};
    float x_S[MAX_INPUTS];
    memcpy(x_S, value_S, (size_t)user->slots * sizeof(float));
    float *number_M = input_I + user->fields * user->width;
    for (int64_t m = 0; m < user->numbers; m++) {
        const Number *number = user->number + m;
        float raw = value_S[number->slot];
        number_M[m] = x_S[number->slot] = scaled(number, raw, user->clip);
        if (number->bucket_row < 0) continue;
        int64_t bucket = raw == raw;
        for (int64_t q = 0; q < number->borders; q++) bucket += raw >= number->border[q];
        added(user, input_I + number->bucket_field * user->width, number->bucket_row + bucket, 1.0f);
    }
    for (int64_t s = 0; s < user->slots; s++)
        if (x_S[s] != 0) added(user, input_I + user->field[s] * user->width, row_of(user, s, key_S[s]), x_S[s]);

    memcpy(state_D, user->offset, (size_t)user->state * sizeof(float));
    int64_t inputs = user->fields * user->width + user->numbers;
    for (int64_t i = 0; i < inputs; i++) {
        const float *column = user->map + i * user->state;
        __builtin_prefetch(column + 2 * user->state);
        if (input_I[i] == 0) continue;
        for (int64_t d = 0; d < user->state; d++) state_D[d] += input_I[i] * column[d];
    }
    double within = 0; /* a small difference of large sums */
    for (int64_t k = 0; k < user->crosses; k++) {
        double sum = state_D[user->crossed + k];
        within += sum * sum;
        for (int64_t f = 0; f < user->fields; f++) {
            double part = input_I[f * user->width + 1 + k];
            within -= part * part;
        }
    }
    state_D[user->state - 1] += (float)(0.5 * within);
}
