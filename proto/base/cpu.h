/* What the processor can do beyond the baseline it is compiled for. Asked once and remembered: inside a virtual machine
 * the question is a trip to the hypervisor. */
#ifndef TG_CPU_H
#define TG_CPU_H

#include <stdbool.h>

enum { CPU_ASKED = 1, CPU_SHA = 2, CPU_CRC = 4, CPU_SSSE3 = 8, CPU_AVX2 = 16 };
int cpu_features(void); /* the sum of what there is; CPU_ASKED alone on other machines */

/* Tests alone set this: the portable code even where the processor has instructions for it. */
extern bool cpu_portable_only;

#endif
