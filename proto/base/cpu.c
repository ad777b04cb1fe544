/* Processor features, by cpuid. */
#include "proto/base/cpu.h"

#include <stdatomic.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

bool cpu_portable_only;

static int ask(void) {
    int f = CPU_ASKED;
#if defined(__x86_64__)
    unsigned a, b, c, d;
    bool sse41 = false;
    if (__get_cpuid(1, &a, &b, &c, &d)) {
        sse41 = (c & bit_SSE4_1) && (c & bit_SSSE3);
        f |= ((c & bit_SSE4_2) ? CPU_CRC : 0) | ((c & bit_SSSE3) ? CPU_SSSE3 : 0);
    }
    if (sse41 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29))) /* EBX bit 29: SHA */
        f |= CPU_SHA;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) /* which looks whether the system keeps the wide registers, too */
        f |= CPU_AVX2;
#endif
    return f;
}

int cpu_features(void) {
    static atomic_int known; /* the answer never changes, so it does not matter who asks first */
    int f = atomic_load_explicit(&known, memory_order_relaxed);
    if (__builtin_expect(f == 0, 0)) {
        f = ask();
        atomic_store_explicit(&known, f, memory_order_relaxed);
    }
    return cpu_portable_only ? CPU_ASKED : f;
}
