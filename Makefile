# make            build/tollgate and build/tollctl
# make check      installs what the tests need, builds and runs all of them (tools/check)
# make unit       the unit tests           make lint    arrows, banned calls, long functions, clang's warnings
# make model      the exhaustive recovery model      make stress    real processes, real kills
# make fuzz       every fuzzer for FUZZ_SECONDS each make bench     the micro benchmarks of tools/bench
# make e2e        the end-to-end tests     make chaos   CHAOS_KILLS kills, a minute of reloads, fifty upgrades
# make agents     coding agents from the npm registry (1.6 GB), AGENTS and KINDS choose (tests/agents/run.mjs)
# make bench-compare   CPU time a call beside nginx and HAProxy      make bench-scale  what size costs
# make hostile         every hostile suite at full length: a million requests under sanitizers, 10,000 silent clients
# make soak            mixed traffic and faults for SOAK_MINUTES     (tools/bench/README.md)
# make install    PREFIX, DESTDIR
# Variables: CC, SAN=1 (address and undefined-behaviour sanitizers), B (build folder), FUZZ_SECONDS, PREFIX, DESTDIR
CC      ?= gcc
ifeq ($(origin CC),default)
CC      := gcc
endif
B       ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
OPT     ?= -O2
FUZZ_SECONDS ?= 10
FLOOD        ?= 1000000
CHAOS_KILLS  ?= 1000
SOAK_MINUTES ?= 30
CFLAGS  += -std=c11 -D_GNU_SOURCE -I. $(OPT) -g -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes \
           -Wmissing-prototypes -fno-strict-aliasing -fstack-protector-strong -MMD -MP
LDLIBS  += -lmbedtls -lmbedx509 -lmbedcrypto -lsodium -llmdb -lcrypt
ifdef SAN
CFLAGS  += -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -DARENA_EMULATE
LDFLAGS += -fsanitize=address,undefined
endif
ifdef FUZZING
CFLAGS  += -fsanitize=fuzzer-no-link
endif
# shm/steps.h: named steps at which the model switches, and a server that can be told where to die.
ifdef STEPS
CFLAGS  += -DSHM_STEPS
endif

PROTO_SRC  := $(sort $(wildcard proto/*.c proto/*/*.c))
SHM_SRC    := $(sort $(wildcard shm/*.c))
WORKER_SRC := $(sort $(wildcard worker/*.c))
MASTER_SRC := $(sort $(wildcard master/*.c master/*/*.c))
obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
PROTO := $(call obj,$(PROTO_SRC))
SHM   := $(call obj,$(SHM_SRC))
SERVER := $(PROTO) $(SHM) $(call obj,$(WORKER_SRC) $(MASTER_SRC))
NOMAIN := $(filter-out $(B)/obj/master/main.o,$(SERVER))

all: $(B)/tollgate $(B)/tollctl

$(B)/tollgate: $(SERVER)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/tollctl: $(call obj,$(sort $(wildcard tools/tollctl*.c))) $(PROTO)
	$(CC) $(LDFLAGS) -o $@ $^
$(B)/obj/%.o: %.c
	@mkdir -p $(dir $@)
	$(CC) $(CFLAGS) -c -o $@ $<

# Programs of one file that link everything but main: tests/unit/NAME_test.c, tests/model/NAME_model.c,
# tests/stress/NAME_stress.c, tools/bench/NAME_bench.c, tests/fuzz/NAME_fuzz.c (by clang, in a build folder of its own).
UNIT   := $(patsubst tests/unit/%.c,$(B)/tests/%,$(sort $(wildcard tests/unit/*_test.c)))
MODEL  := $(patsubst tests/model/%.c,$(B)/model/%,$(sort $(wildcard tests/model/*_model.c)))
STRESS := $(patsubst tests/stress/%.c,$(B)/stress/%,$(sort $(wildcard tests/stress/*_stress.c)))
BENCH  := $(patsubst tools/bench/%.c,$(B)/bench/%,$(sort $(wildcard tools/bench/*_bench.c)))
FUZZ   := $(patsubst tests/fuzz/%.c,$(B)/fuzzers/%,$(sort $(wildcard tests/fuzz/*_fuzz.c)))
define one-file
@mkdir -p $(dir $@)
$(CC) $(CFLAGS) $(LDFLAGS) $(1) -o $@ $(filter %.c %.o,$^) $(2) $(LDLIBS)
endef
$(B)/tests/%: tests/unit/%.c $(NOMAIN)
	$(call one-file,,-lcmocka)
# The model and the stress test know shm/ and proto/ alone, built with steps; other files beside them are shared.
$(B)/model/%: tests/model/%.c $(filter-out %_model.c,$(wildcard tests/model/*.c)) $(SHM) $(PROTO)
	$(call one-file)
$(B)/stress/%: tests/stress/%.c $(filter-out %_stress.c,$(wildcard tests/stress/*.c)) $(SHM) $(PROTO)
	$(call one-file)
$(B)/bench/%: tools/bench/%.c $(NOMAIN)
	$(call one-file)
# A load generator and a provider for it: what tools/bench/run.mjs measures with.
$(B)/bench/load: tools/bench/load_client.c tools/bench/load_request.c tools/bench/proc.c
$(B)/bench/mock: tools/bench/mock_script.c
$(B)/fuzzers/%: tests/fuzz/%.c $(NOMAIN)
	$(call one-file,-fsanitize=fuzzer)

unit-build: $(UNIT)
unit: $(UNIT)
	@tests/run-unit $(UNIT)
model-build: $(MODEL)
stress-build: $(STRESS)
steps-build:
	$(MAKE) --no-print-directory B=$(B)/steps STEPS=1 all model-build stress-build
model:
	$(MAKE) --no-print-directory B=$(B)/steps STEPS=1 model-build
	@tests/run-each 300 $(patsubst $(B)/%,$(B)/steps/%,$(MODEL))
stress:
	$(MAKE) --no-print-directory B=$(B)/steps STEPS=1 stress-build
	@tests/run-each 120 $(patsubst $(B)/%,$(B)/steps/%,$(STRESS))
bench: $(BENCH)
	@for b in $(BENCH); do echo "== $$b"; $$b || exit 1; done
bench-build: all $(B)/bench/load $(B)/bench/mock $(B)/bench/ledger_bench
bench-compare: bench-build
	@B=$(B) tools/bench/run.mjs compare
bench-scale: bench-build
	@B=$(B) tools/bench/run.mjs scale --full
soak: bench-build
	@B=$(B) tools/bench/run.mjs soak --minutes $(SOAK_MINUTES)
fuzz-build: $(FUZZ)
fuzz:
	$(MAKE) --no-print-directory B=$(B)/san-clang CC=clang SAN=1 FUZZING=1 fuzz-build
	@tests/run-fuzz $(FUZZ_SECONDS) $(patsubst $(B)/%,$(B)/san-clang/%,$(FUZZ))
lint:
	@tools/lint
e2e: all
	@B=$(B) tests/e2e/run
hostile: all
	$(MAKE) --no-print-directory B=build/san-gcc CC=gcc SAN=1 OPT=-O1 all
	@B=$(B) SMUGGLING_CUTS=all PROVIDER_CUTS=all SILENT=10000 TAG_REQUESTS=200000 FLOOD=$(FLOOD) \
	    tests/e2e/run smuggling providers crowds tags flood json inputs inside seal
chaos: all
	$(MAKE) --no-print-directory B=$(B)/steps STEPS=1 all
	@B=$(B) E2E_JOBS=1 CHAOS_KILLS=$(CHAOS_KILLS) STORM_S=60 RELOADS=60 RELOAD_MS=1000 UPGRADES=50 \
	tests/e2e/run kill steps reload upgrade
agents: all
	@B=$(B) node tests/agents/run.mjs
check:
	@tools/check

install: all
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/tollgate \
	           $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 755 $(B)/tollgate $(DESTDIR)$(PREFIX)/sbin/tollgate
	install -m 755 $(B)/tollctl $(DESTDIR)$(PREFIX)/bin/tollctl
	install -m 644 gateway.conf.example $(DESTDIR)$(PREFIX)/share/tollgate/gateway.conf.example
	sed 's|@PREFIX@|$(PREFIX)|g' contrib/tollgate.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/tollgate.service
	chmod 644 $(DESTDIR)$(PREFIX)/lib/systemd/system/tollgate.service

clean:
	rm -rf $(B)
.PHONY: all unit-build unit model-build stress-build steps-build model stress bench bench-build bench-compare \
        bench-scale soak fuzz-build fuzz lint e2e chaos hostile agents \
        check install clean
.SECONDARY:
-include mk/*.mk
-include $(shell find $(B) -name '*.d' 2>/dev/null)
