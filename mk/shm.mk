# make stress-mutations: leaves rules of docs/recovery.md out, one after the other; the stress test must find each of them out
stress-mutations:
	$(MAKE) --no-print-directory B=$(B)/steps STEPS=1 stress-build
	$(B)/steps/stress/recovery_stress mutations
.PHONY: stress-mutations
