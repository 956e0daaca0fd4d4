# blockjobfs. `make help` lists what can be made.

PREFIX ?= /usr/local
VERSION := 0.1.0
CC ?= gcc
PYTHON ?= /usr/bin/python3
BUILD := build$(if $(SAN),/san)
PACKAGES := fuse3 json-c libuv

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wno-unused-parameter -Wformat=2
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE $(WARN) $(CFLAGS) $(if $(WERROR),-Werror) $(SANFLAGS) -I. -D_FILE_OFFSET_BITS=64 \
	-DFUSE_USE_VERSION=314 -DBLOCKJOBFS_VERSION='"$(VERSION)"' $(shell pkg-config --cflags $(PACKAGES))
SANFLAGS := $(if $(SAN),-fsanitize=address -fsanitize=undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
LIBS = $(shell pkg-config --libs $(PACKAGES))

SOURCES := $(wildcard qmp/*.c jobs/*.c fs/*.c)
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
LIBRARY := $(filter-out $(BUILD)/fs/main.o,$(OBJECTS))
FAKES := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/fake/*.c))
BENCHES := $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/bench/*.c))
BENCHES := $(filter-out $(if $(shell pkg-config --exists libvirt && echo yes),,%/libvirt_info),$(BENCHES))
UNITS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/unit/*.c))
PROGRAM := $(if $(SAN),$(BUILD)/blockjobfs,blockjobfs)

# What is being made, in a word; `make V=1` shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@echo "  $(1) $@")

.PHONY: all help deps demo test check e2e soak bench lint format docs install clean

all: $(PROGRAM)

help:
	@echo "make           build ./blockjobfs"
	@echo "make demo      watch a disk being pulled free of its template (installs what is missing)"
	@echo "make test      every test (installs what is missing)"
	@echo "make check     unit tests, no mount; make check SAN=1: with the address and undefined-behaviour sanitizers"
	@echo "make e2e       real daemon, real QEMU, real mounts: make e2e PYTEST_ARGS='-k wait'"
	@echo "make soak      the hardest moments many times over: make soak SOAK_ROUNDS=500"
	@echo "make bench     what it costs, beside the smallest thing that could do the same: make bench BENCH_LINES=files"
	@echo "make lint      formatting, arrows between folders, generated docs"
	@echo "make docs      write docs/files.md anew from the file tables"
	@echo "make install   to DESTDIR and PREFIX ($(PREFIX))"

$(PROGRAM): $(OBJECTS)
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(FAKES) $(LIBRARY)
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) -lcriterion

-include $(OBJECTS:.o=.d) $(FAKES:.o=.d) $(UNITS:=.d)

deps:
	@.ci/deps test

demo:
	@.ci/deps demo
	@$(MAKE) --no-print-directory -s all
	@tests/demo.sh

check: $(UNITS)
	@tests/check.sh $(UNITS)

e2e: all
	@BLOCKJOBFS=$(CURDIR)/$(PROGRAM) PYTHON=$(PYTHON) tests/e2e.sh $(PYTEST_ARGS)

soak: all
	@BLOCKJOBFS=$(CURDIR)/$(PROGRAM) PYTHON=$(PYTHON) SOAK_ROUNDS=$(SOAK_ROUNDS) tests/soak.sh

test: deps
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory e2e

bench: all $(BENCHES)
	@BLOCKJOBFS=$(CURDIR)/$(PROGRAM) BENCH_JSON=$(BUILD)/bench.json $(PYTHON) tests/bench/bench.py $(BENCH_LINES)

# The programs of make bench are on their own: nothing of ours is in what we are measured against.
$(BUILD)/bench/%: tests/bench/%.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -pthread -o $@ $< $(if $(filter floor_fs,$*),$(LIBS)) \
		$(if $(filter libvirt_info,$*),$(shell pkg-config --libs libvirt))

lint: all
	@tests/lint.sh

format:
	clang-format -i $(SOURCES) $(wildcard qmp/*.h jobs/*.h fs/*.h tests/*/*.c tests/*/*.h)

docs: all
	./blockjobfs --list-files > docs/files.md

install: all
	install -D -m 755 blockjobfs $(DESTDIR)$(PREFIX)/bin/blockjobfs
	install -D -m 644 docs/blockjobfs.1 $(DESTDIR)$(PREFIX)/share/man/man1/blockjobfs.1

clean:
	rm -rf build blockjobfs
