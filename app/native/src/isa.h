/* The instruction sets that the scorer is compiled for. The enum's order is that of the bits of ctr_supported_isas. */

enum {
    ISA_BASE,    /* float32, any processor */
    ISA_AVX2,    /* float32 */
    ISA_AVX512,  /* float32 */
    ISA_BFLOAT16 /* AVX-512 BF16: item states and weights are bfloat16, everything else is float32 */
};

#ifdef __x86_64__
#include <cpuid.h>

/* Return the register sets that the operating system saves on a task switch (XCR0). Without that a processor's own flags
   mean nothing. */
static uint64_t saved_registers(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}
#endif

/* Return the instruction sets that this processor can run, as bits: 1 << ISA_AVX2 and so on. */
EXPORT int64_t ctr_supported_isas(void) {
    int64_t isas = 1 << ISA_BASE;
#ifdef __x86_64__
    enum { XSAVE = 1 << 27, FMA = 1 << 12, AVX2 = 1 << 5, AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512BW = 1 << 30 };
    enum { AVX512BF16 = 1 << 5, SAVED_YMM = 0x6, SAVED_ZMM = 0xe6 };
    const uint32_t AVX512VL = 1u << 31, avx512 = AVX512F | AVX512DQ | AVX512BW | AVX512VL;
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (XSAVE | FMA)) != (XSAVE | FMA)) return isas;
    uint64_t saved = saved_registers();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & AVX2) || (saved & SAVED_YMM) != SAVED_YMM) return isas;
    isas |= 1 << ISA_AVX2;
    if ((b & avx512) != avx512 || (saved & SAVED_ZMM) != SAVED_ZMM) return isas;
    isas |= 1 << ISA_AVX512;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && a & AVX512BF16) isas |= 1 << ISA_BFLOAT16;
#endif
    return isas;
}

/* Return the number of columns in a panel of weights, the unit in which a layer's weights are laid out. */
EXPORT int64_t ctr_panel_columns(int64_t isa) { return isa >= ISA_AVX512 ? 32 : isa == ISA_AVX2 ? 16 : 8; }
