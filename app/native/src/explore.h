/* An order drawn from scores by a policy, and the propensity of each place: the probability with which the policy puts that
   candidate there, given those above it. The random numbers follow from a seed alone, so that an answer can be drawn again. */

enum { POLICY_SOFTMAX = 1, POLICY_EPSILON = 2 };

typedef struct {
    int64_t kind, isa;
    double parameter;   /* the temperature, or epsilon */
    double *scratch_4N; /* for as many candidates as there may be in a call */
} Policy;

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define MIN_PROBABILITY 1e-12
#define MAX_PROBABILITY (1.0 - 0x1p-25)
#define WIDEST (-700.0) /* the logarithm of the smallest weight beside the largest, 1, with which weights are normal numbers */

/* Return number `counter` of a seed's random numbers: SplitMix64 (Steele, Lea and Flood 2014). */
static ALWAYS_INLINE uint64_t random_bits(uint64_t seed, uint64_t counter) {
    uint64_t z = seed + (counter + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static ALWAYS_INLINE uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, 8);
    return bits;
}

static ALWAYS_INLINE double double_of(uint64_t bits) {
    double x;
    memcpy(&x, &bits, 8);
    return x;
}

/* Return one of 2^52 numbers that are spread evenly over (0, 1). */
static ALWAYS_INLINE double unit_interval(uint64_t bits) {
    return double_of(bits >> 12 | 0x3ff0000000000000u) - (1.0 - 0x1p-53);
}

/* Replace N positive normal numbers by their logarithms, to within 2 units in the last place, by FreeBSD's e_log.c; without
   branches, so that the compiler takes several at a time. */
static ALWAYS_INLINE void logs(double *x_N, int64_t n) {
    const uint64_t one = 0x3ff0000000000000u, sqrt_half = 0x3fe6a09e667f3bcdu;
    for (int64_t i = 0; i < n; i++) {
        uint64_t shifted = bits_of(x_N[i]) + (one - sqrt_half);
        double exponent = double_of(shifted >> 52 | 0x4330000000000000u) - (0x1p52 + 1023.0);
        double f = double_of((shifted & 0xfffffffffffffu) + sqrt_half) - 1.0, s = f / (2.0 + f), z = s * s, half = 0.5 * f * f;
        double series = z * (6.666666666666735130e-01 + z * (3.999999999940941908e-01 + z * (2.857142874366239149e-01 + z *
                        (2.222219843214978396e-01 + z * (1.818357216161805012e-01 + z * (1.531383769920937332e-01 + z *
                        1.479819860511658591e-01))))));
        x_N[i] = exponent * 6.93147180369123816490e-01 -
                 (half - (s * (half + series) + exponent * 1.90821492927058770002e-10) - f);
    }
}

/* Replace N numbers from -708 to 0 by their exponentials, to within 2 units in the last place: a power of two by the sum of
   the series. */
static ALWAYS_INLINE void exponentials(double *x_N, int64_t n) {
    const double whole = 0x1.8p52; /* added, it leaves the nearest whole number in the lower bits */
    for (int64_t i = 0; i < n; i++) {
        double shifted = x_N[i] * 1.44269504088896338700 + whole, k = shifted - whole;
        double r = x_N[i] - k * 6.93147180369123816490e-01 - k * 1.90821492927058770002e-10;
        double series = 1.0 / 6227020800;
        series = series * r + 1.0 / 479001600;
        series = series * r + 1.0 / 39916800;
        series = series * r + 1.0 / 3628800;
        series = series * r + 1.0 / 362880;
        series = series * r + 1.0 / 40320;
        series = series * r + 1.0 / 5040;
        series = series * r + 1.0 / 720;
        series = series * r + 1.0 / 120;
        series = series * r + 1.0 / 24;
        series = series * r + 1.0 / 6;
        series = series * r + 0.5;
        series = series * r + 1.0;
        series = series * r + 1.0;
        x_N[i] = series * double_of((bits_of(shifted) + 1023) << 52);
    }
}

/* Write the weights of candidates and when they arrive, by times that have exponential distributions whose rates are the
   weights. Where weights differ too much for numbers, both are logarithms; return whether they are. The pairs are of the 16
   upper bits in which arrivals differ, above, and of an index, below. */
static ALWAYS_INLINE int weigh(double temperature, uint64_t seed, const float *score_N, const int64_t *position_N, int64_t n,
                               double *weight_N, double *arrival_N, uint64_t *pair_N) {
    double scale = 1.0 / temperature;
    for (int64_t i = 0; i < n; i++) {
        double p = score_N[i];
        p = p < MIN_PROBABILITY ? MIN_PROBABILITY : p > MAX_PROBABILITY ? MAX_PROBABILITY : p;
        weight_N[i] = p / (1.0 - p);
    }
    for (int64_t i = 0; i < n; i++) arrival_N[i] = unit_interval(random_bits(seed, (uint64_t)position_N[i]));
    logs(weight_N, n);
    logs(arrival_N, n);
    double best = weight_N[0];
    for (int64_t i = 0; i < n; i++) weight_N[i] = (weight_N[i] - best) * scale;
    for (int64_t i = 0; i < n; i++) arrival_N[i] = -arrival_N[i];
    int are_logs = weight_N[n - 1] < WIDEST;
    if (are_logs) {
        logs(arrival_N, n); /* above -37 */
        for (int64_t i = 0; i < n; i++) arrival_N[i] += 64.0 - weight_N[i];
    } else {
        exponentials(weight_N, n);
        for (int64_t i = 0; i < n; i++) arrival_N[i] /= weight_N[i];
    }
    uint64_t least = UINT64_MAX, most = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits = bits_of(arrival_N[i]);
        least = bits < least ? bits : least;
        most = bits > most ? bits : most;
    }
    int shift = 48 - __builtin_clzll((most - least) | 0xffff);
    for (int64_t i = 0; i < n; i++) pair_N[i] = (bits_of(arrival_N[i]) - least) >> shift << 32 | (uint64_t)i;
    return are_logs;
}

#define WEIGH(isa, target)                                                                                            \
    target static int isa##_weigh(double temperature, uint64_t seed, const float *score_N, const int64_t *position_N, \
                                  int64_t n, double *weight_N, double *arrival_N, uint64_t *pair_N) {                 \
        return weigh(temperature, seed, score_N, position_N, n, weight_N, arrival_N, pair_N);                         \
    }
WEIGH(base, )
#ifdef __x86_64__
WEIGH(avx2, __attribute__((target("avx2,fma"))))
WEIGH(avx512, __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma,no-prefer-256-bit"))))
#endif

/* Return the indices of N arrivals, in the lower 32 bits of each entry: those of the K first in order, then the others. By
   the upper bits of their pairs, those that may be among the K are found and sorted, byte by byte, after which few have to
   move. */
static const uint64_t *first_arrivals(const double *arrival_N, int64_t n, int64_t k, uint64_t *pair_2N) {
    uint64_t *from = pair_2N, *to = pair_2N + n, limit = 0;
    uint32_t counts[2][256] = {{0}};
    for (int64_t i = 0; i < n; i++) counts[1][from[i] >> 40]++;
    for (int64_t below = counts[1][0]; below < k; below += counts[1][limit]) limit++;
    int64_t m = 0, others = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t pair = from[i], is_among = pair >> 40 <= limit;
        from[m] = to[n - 1 - others] = pair;
        m += (int64_t)is_among;
        others += (int64_t)!is_among;
    }
    for (int64_t i = 0; i < m; i++) counts[0][from[i] >> 32 & 0xff]++;
    for (int byte = 0; byte < 2; byte++) {
        uint32_t sum = 0;
        for (int digit = 0; digit < 256; digit++) {
            uint32_t count = counts[byte][digit];
            counts[byte][digit] = sum;
            sum += count;
        }
        for (int64_t i = 0; i < m; i++) to[counts[byte][from[i] >> (32 + 8 * byte) & 0xff]++] = from[i];
        uint64_t *swapped = from;
        from = to;
        to = swapped;
    }
    memcpy(from + m, to + m, (size_t)others * sizeof(uint64_t));
    for (int64_t i = 1; i < m; i++) {
        uint64_t pair = from[i];
        int64_t place = i;
        for (; place && arrival_N[(uint32_t)from[place - 1]] > arrival_N[(uint32_t)pair]; place--) from[place] = from[place - 1];
        from[place] = pair;
    }
    return from;
}

/* Write the propensities of the first P of N candidates, which were drawn in this order: a weight over the sum of those that
   were left. Sums begin at the end, so that small weights do not vanish beside large ones. */
static ALWAYS_INLINE void softmax_propensities(const double *weight_N, const uint64_t *order_N, int64_t n, int64_t p,
                                               int are_logs, float *propensity_P) {
    double sum = 0.0, sums[4] = {0}, largest = are_logs ? weight_N[(uint32_t)order_N[n - 1]] : 0.0;
    int64_t place = n - 1;
    if (!are_logs) { /* four sums at a time, which do not wait for each other */
        for (; place >= p + 3; place -= 4)
            for (int part = 0; part < 4; part++) sums[part] += weight_N[(uint32_t)order_N[place - part]];
        sum = sums[0] + sums[1] + (sums[2] + sums[3]);
    }
    for (; place >= 0; place--) {
        double weight = weight_N[(uint32_t)order_N[place]];
        if (are_logs && weight > largest) { /* weights are relative to the largest yet */
            sum *= exp(largest - weight);
            largest = weight;
        }
        if (are_logs) weight = exp(weight - largest);
        sum += weight;
        if (place < p) propensity_P[place] = (float)(weight / sum);
    }
}

/* Plackett-Luce: with weights w = (p / (1 - p))^(1 / temperature), each place takes one of the rest with a probability in
   proportion to its weight. That is the order in which they arrive by rates w, and that of Gumbel's top k. */
static void draw_softmax(const Policy *policy, uint64_t seed, const float *score_N, const int64_t *position_N, int64_t n,
                         int64_t k, int64_t p, float *drawn_score_K, int64_t *drawn_position_K, float *propensity_P) {
    double *weight_N = policy->scratch_4N, *arrival_N = weight_N + n, temperature = policy->parameter;
    uint64_t *pair_2N = (uint64_t *)(arrival_N + n);
    int are_logs;
    switch (policy->isa) {
#ifdef __x86_64__
    case ISA_BFLOAT16:
    case ISA_AVX512: are_logs = avx512_weigh(temperature, seed, score_N, position_N, n, weight_N, arrival_N, pair_2N); break;
    case ISA_AVX2: are_logs = avx2_weigh(temperature, seed, score_N, position_N, n, weight_N, arrival_N, pair_2N); break;
#endif
    default: are_logs = base_weigh(temperature, seed, score_N, position_N, n, weight_N, arrival_N, pair_2N);
    }
    const uint64_t *order_N = first_arrivals(arrival_N, n, k, pair_2N);
    for (int64_t place = 0; place < k; place++) {
        uint32_t i = (uint32_t)order_N[place];
        drawn_score_K[place] = score_N[i];
        drawn_position_K[place] = position_N[i];
    }
    if (are_logs)
        softmax_propensities(weight_N, order_N, n, p, 1, propensity_P);
    else
        softmax_propensities(weight_N, order_N, n, p, 0, propensity_P);
}

/* Each place takes the best of the rest, or with probability epsilon one of all the rest, each as likely. */
static void draw_epsilon(const Policy *policy, uint64_t seed, const float *score_N, const int64_t *position_N, int64_t n,
                         int64_t k, int64_t p, float *drawn_score_K, int64_t *drawn_position_K, float *propensity_P) {
    int64_t *rest_N = (int64_t *)policy->scratch_4N;
    double epsilon = policy->parameter;
    for (int64_t i = 0; i < n; i++) rest_N[i] = i;
    for (int64_t place = 0; place < k; place++) {
        double each = epsilon / (double)(n - place);
        int64_t taken = place;
        if (unit_interval(random_bits(seed, 2 * (uint64_t)place)) < epsilon) {
            unsigned __int128 product = (unsigned __int128)random_bits(seed, 2 * (uint64_t)place + 1) * (uint64_t)(n - place);
            taken += (int64_t)(product >> 64);
        }
        int64_t i = rest_N[taken];
        memmove(rest_N + place + 1, rest_N + place, (size_t)(taken - place) * sizeof(int64_t));
        rest_N[place] = i;
        drawn_score_K[place] = score_N[i];
        drawn_position_K[place] = position_N[i];
        if (place < p) propensity_P[place] = (float)(taken == place ? 1.0 - epsilon + each : each);
    }
}

/* Draw the first K places of an order of N candidates, given by their probabilities, highest first and none NaN, and their
   positions in the request. Write K positions, and behind them K probabilities and the propensities of the first P. */
EXPORT void ctr_draw_order(const Policy *policy, uint64_t seed, const float *score_N, const int64_t *position_N, int64_t n,
                           int64_t k, int64_t p, int64_t *drawn_2K) {
    float *drawn_score_K = (float *)(drawn_2K + k);
    if (policy->kind == POLICY_SOFTMAX)
        draw_softmax(policy, seed, score_N, position_N, n, k, p, drawn_score_K, drawn_2K, drawn_score_K + k);
    else
        draw_epsilon(policy, seed, score_N, position_N, n, k, p, drawn_score_K, drawn_2K, drawn_score_K + k);
}
