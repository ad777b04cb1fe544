# make            build/tollgate and build/tollctl
# make check      builds and runs all tests (tools/check installs what they need first)
# make lint       include direction, banned calls, long functions, warnings by the other compiler
# make fuzz       every fuzzer for FUZZ_SECONDS (10) each        make bench   tools/bench
# Variables: CC, SAN=1 (address and undefined-behaviour sanitizers), B (build folder), PREFIX, DESTDIR
CC      ?= gcc
B       ?= build
PREFIX  ?= /usr/local
OPT     ?= -O2
CFLAGS  += -std=c11 -D_GNU_SOURCE -I. $(OPT) -g -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
           -fno-strict-aliasing -fstack-protector-strong -MMD -MP
LDLIBS  += -lmbedtls -lmbedx509 -lmbedcrypto -llmdb -lcrypt
ifdef SAN
CFLAGS  += -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -DARENA_EMULATE
LDFLAGS += -fsanitize=address,undefined
endif

PROTO_SRC  := $(sort $(wildcard proto/*.c proto/*/*.c))
SHM_SRC    := $(sort $(wildcard shm/*.c))
WORKER_SRC := $(sort $(wildcard worker/*.c))
MASTER_SRC := $(sort $(wildcard master/*.c))
obj = $(patsubst %.c,$(B)/obj/%.o,$(1))
PROTO := $(call obj,$(PROTO_SRC))
SHM   := $(call obj,$(SHM_SRC))
SERVER := $(PROTO) $(SHM) $(call obj,$(WORKER_SRC) $(MASTER_SRC))

all: $(B)/tollgate $(B)/tollctl

$(B)/tollgate: $(SERVER)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/tollctl: $(B)/obj/tools/tollctl.o $(PROTO)
	$(CC) $(LDFLAGS) -o $@ $^
$(B)/obj/%.o: %.c
	@mkdir -p $(dir $@)
	$(CC) $(CFLAGS) -c -o $@ $<

# Unit tests: tests/unit/NAME_test.c links everything but main.
UNIT := $(patsubst tests/unit/%.c,$(B)/tests/%,$(sort $(wildcard tests/unit/*_test.c)))
$(B)/tests/%: tests/unit/%.c $(filter-out $(B)/obj/master/main.o,$(SERVER))
	@mkdir -p $(dir $@)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.c %.o,$^) -lcmocka $(LDLIBS)

unit: $(UNIT)
	@tests/run-unit $(UNIT)

clean:
	rm -rf $(B)
.PHONY: all unit clean
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
