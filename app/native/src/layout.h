/* The layout of what is shared with Python, as this library was compiled: app/native/layout.py declares the same structures
   and constants a second time, and compares them with this list when it loads the library. */

typedef struct {
    const char *name;
    int64_t value;
} LayoutEntry;

#define CONSTANT(name) {#name, name}
#define STRUCT(type) {"sizeof(" #type ")", (int64_t)sizeof(type)}
#define MEMBER(type, member)                                                                                           \
    {"offsetof(" #type ", " #member ")", (int64_t)offsetof(type, member)},                                             \
    {"sizeof(" #type "." #member ")", (int64_t)sizeof(((type *)0)->member)}

static const LayoutEntry LAYOUT[] = {
    CONSTANT(ISA_BASE), CONSTANT(ISA_AVX2), CONSTANT(ISA_AVX512), CONSTANT(ISA_BFLOAT16),
    CONSTANT(MAX_LAYERS), CONSTANT(MAX_WIDTH), CONSTANT(MAX_INPUTS), CONSTANT(MAX_TRANSFORMS),
    CONSTANT(TRANSFORM_LOG1P), CONSTANT(TRANSFORM_SQRT), CONSTANT(TRANSFORM_SQUARE), CONSTANT(TRANSFORM_STANDARDISE),
    CONSTANT(POLICY_SOFTMAX), CONSTANT(POLICY_EPSILON),
    CONSTANT(ABSENT), CONSTANT(AMBIGUOUS), CONSTANT(ALL_DISTINCT), CONSTANT(MAX_VALUE_BYTES),

    STRUCT(Layer), MEMBER(Layer, weight), MEMBER(Layer, bias), MEMBER(Layer, width), MEMBER(Layer, padded),

    STRUCT(TopMlp), MEMBER(TopMlp, hidden), MEMBER(TopMlp, cross), MEMBER(TopMlp, user_bias), MEMBER(TopMlp, item_bias),
    MEMBER(TopMlp, item_width), MEMBER(TopMlp, layers), MEMBER(TopMlp, output_width), MEMBER(TopMlp, output_bias),
    MEMBER(TopMlp, calibration_scale), MEMBER(TopMlp, calibration_offset), MEMBER(TopMlp, output_weight),
    MEMBER(TopMlp, layer),

    STRUCT(NumericField), MEMBER(NumericField, slot), MEMBER(NumericField, bucket_row), MEMBER(NumericField, borders),
    MEMBER(NumericField, bucket_field), MEMBER(NumericField, transforms), MEMBER(NumericField, border),
    MEMBER(NumericField, mean), MEMBER(NumericField, deviation),

    STRUCT(UserEncoder), MEMBER(UserEncoder, vocabulary), MEMBER(UserEncoder, table), MEMBER(UserEncoder, oov_row),
    MEMBER(UserEncoder, field), MEMBER(UserEncoder, numeric), MEMBER(UserEncoder, weight), MEMBER(UserEncoder, bias),
    MEMBER(UserEncoder, vocabulary_size), MEMBER(UserEncoder, first_vocabulary_row), MEMBER(UserEncoder, vector_width),
    MEMBER(UserEncoder, slots), MEMBER(UserEncoder, fields), MEMBER(UserEncoder, numerics),
    MEMBER(UserEncoder, state_width), MEMBER(UserEncoder, cross_start), MEMBER(UserEncoder, cross_count),
    MEMBER(UserEncoder, clip),

    STRUCT(IndexEntry), MEMBER(IndexEntry, hash), MEMBER(IndexEntry, row),

    STRUCT(Policy), MEMBER(Policy, kind), MEMBER(Policy, isa), MEMBER(Policy, parameter), MEMBER(Policy, scratch_4N),
};

/* Return the list, and write its length. */
EXPORT const LayoutEntry *ctr_layout(int64_t *count) {
    *count = sizeof(LAYOUT) / sizeof(*LAYOUT);
    return LAYOUT;
}
