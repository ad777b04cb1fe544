#!/usr/bin/env python3
"""Prints price_vectors.h: random meters, prices and ratios, and the exact costs by fractions.Fraction (whose round() is half to even)."""
import random
from fractions import Fraction

MAX = 2**63 - 1
random.seed(20)


def row(n, p, ratio):
    total = sum(Fraction(a * b) for a, b in zip(n, p)) * Fraction(ratio, 10**6)
    nano, tokens = (min(round(total / d), MAX) for d in (1000, 10**6))
    nums = lambda v: "{ " + ", ".join(f"{x}u" for x in v) + " }"
    print(f"    {{ {nums(n)}, {nums(p)}, {ratio}u, {nano}, {tokens} }},")


print("/* Made by price_vectors.py; not edited by hand. */")
print("#ifndef TG_PRICE_VECTORS_H\n#define TG_PRICE_VECTORS_H\n")
print("#include \"proto/price.h\"\n")
print("static const struct { uint64_t n[METER_COUNT], p[METER_COUNT]; uint32_t ratio; int64_t nano, tokens; } PRICE_VECTORS[] = {")
for i in range(120):
    size = random.choice([10, 1000, 10**6, 2**40])
    price = random.choice([50, 1000, 10**7, 10**12])
    n = [random.choice([0, random.randrange(size)]) for _ in range(11)]
    p = [random.randrange(price) for _ in range(11)]
    row(n, p, random.choice([10**6, 10**6, 1, 500000, 1250000, random.randrange(2**32)]))
for i in range(60):  # exactly half, on either side of even
    k = random.randrange(10**6)
    row([0, 0, k, 0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 1000, 0, 0, 0, 500 + i % 3 - 1, 0, 0, 0, 0], 10**6)
    row([2 * k + 1] + [0] * 10, [500000] + [0] * 10, 10**6)
print("};\n\n#endif")
