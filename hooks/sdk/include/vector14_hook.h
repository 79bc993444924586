/* The interface between vector14 and hooks that it loads from shared libraries.
 *
 * Generated from hooks/sdk/src/abi/types.rs of vector14; `vector14 hook header` prints it.
 * Build a hook with `cc -shared -fPIC -o libmine.so mine.c`, and name it in a config: [[hook]] path = "libmine.so"
 */
#ifndef VECTOR14_HOOK_H
#define VECTOR14_HOOK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vector14_registers vector14_registers;
typedef struct vector14_text vector14_text;
typedef struct vector14_sink vector14_sink;
typedef struct vector14_fault vector14_fault;
typedef struct vector14_verdict vector14_verdict;
typedef struct vector14_guest_result vector14_guest_result;
typedef struct vector14_translation vector14_translation;
typedef struct vector14_mapping vector14_mapping;
typedef struct vector14_table_entry vector14_table_entry;
typedef struct vector14_walk vector14_walk;
typedef struct vector14_code vector14_code;
typedef struct vector14_system_registers vector14_system_registers;
typedef struct vector14_guest vector14_guest;
typedef struct vector14_guest_calls vector14_guest_calls;
typedef struct vector14_options vector14_options;
typedef struct vector14_options_error vector14_options_error;
typedef struct vector14_option_doc vector14_option_doc;
typedef struct vector14_sizes vector14_sizes;
typedef struct vector14_prefix vector14_prefix;
typedef struct vector14_descriptor vector14_descriptor;

/* The general registers of the faulting context; the guest resumes with these values. */
struct vector14_registers {
    uint64_t rax;
    uint64_t rbx;
    uint64_t rcx;
    uint64_t rdx;
    uint64_t rsi;
    uint64_t rdi;
    uint64_t rbp;
    uint64_t rsp;
    uint64_t r8;
    uint64_t r9;
    uint64_t r10;
    uint64_t r11;
    uint64_t r12;
    uint64_t r13;
    uint64_t r14;
    uint64_t r15;
    uint64_t rip;
    uint64_t rflags;
};

/* The first 8 bytes of every descriptor, whatever the version: "v14 hook". */
#define VECTOR14_MAGIC 0x6b6f6f6820343176u

/* The version of this interface. Libraries of another version are refused. */
#define VECTOR14_VERSION 2

/* Text in UTF-8, without a NUL at its end. */
struct vector14_text {
    /* The first byte. NULL means no text, which is not the same as an empty text. */
    const char *bytes;
    /* Length in bytes. */
    size_t length;
};

/* Receives text. A sink that is passed to a function is valid until the function returns. */
struct vector14_sink {
    /* Appends bytes to the text; the bytes are copied. Pass `context` as the first argument. */
    void (*write)(void *context, const char *bytes, size_t length);
    /* The first argument for `write`. */
    void *context;
};

/* One guest page fault, with the context that it interrupted. */
struct vector14_fault {
    /* Number of the fault among all faults of this VM, from 0, in the order in which they reached the host. */
    uint64_t sequence;
    /* The linear address whose access faulted (CR2). */
    uint64_t address;
    /* Address of the faulting instruction. */
    uint64_t rip;
    /* Stack pointer of the interrupted context. */
    uint64_t rsp;
    /* Flags of the interrupted context. */
    uint64_t rflags;
    /* CR3 at the exit: the page tables that were in use. */
    uint64_t cr3;
    /* The vCPU that faulted, from 0 to 7. */
    uint32_t vcpu;
    /* The error code of the #PF: bit 0 present, 1 write, 2 user, 3 reserved bit, 4 fetch, 5 protection key,
     * 6 shadow stack; the other bits are as the CPU pushed them. */
    uint32_t error_code;
    /* Selector of the interrupted code segment; its low two bits are the CPL. */
    uint16_t cs;
    /* Selector of the interrupted stack segment. */
    uint16_t ss;
    /* 0. */
    uint32_t padding;
};

/* What happens with a fault. The first verdict in the chain that is not PASS decides; if every hook passes, the fault
 * is reinjected. Register changes take effect with any verdict that does not fail. An instruction pointer that is not
 * canonical fails with any verdict. A verdict that fails is reported, and the fault is reinjected with the registers
 * as they were. The failure counts against the hook, which is then disabled, unless the guest's gates, segments or
 * stack are the cause. */
typedef uint32_t vector14_verdict_kind;
#define VECTOR14_VERDICT_PASS 0 /* No opinion: the next hook is asked. */
#define VECTOR14_VERDICT_REINJECT 1 /* The guest's own handler runs, with the error code and CR2 that the CPU supplied. */
#define VECTOR14_VERDICT_REINJECT_AS 2 /* The guest's own handler runs, with the verdict's `address` and `error_code`. Fails if the address is not canonical, or if the error code has bits that no CPU sets. */
#define VECTOR14_VERDICT_RESOLVE 3 /* The instruction is retried; the guest's handler never runs. If the guest makes no progress, the fault is reinjected. */
#define VECTOR14_VERDICT_SKIP 4 /* The instruction has no effect, and the next one runs, with RFLAGS.RF clear. Fails if the instruction can't be read or decoded, or if there is none, because the CPU was delivering another event. */
#define VECTOR14_VERDICT_RAISE 5 /* The exception in the verdict's `vector` is raised at the faulting instruction instead of #PF. Fails if the vector is not an exception; if it has an error code but the CPU pushes none, or the reverse; with the engine "gate", if the gate is missing or has its own stack or code segment; with "exception-bitmap", for vectors 3 and 4, and those that CPUs don't define. */
#define VECTOR14_VERDICT_STOP 6 /* The VM stops; the text says why. */

/* A verdict. When `on_fault` is called, it is initialised to PASS and zeroes. */
struct vector14_verdict {
    /* The kind of verdict. */
    vector14_verdict_kind kind;
    /* For REINJECT_AS, and for RAISE if `has_error_code` is 1: the error code to push. */
    uint32_t error_code;
    /* For REINJECT_AS: the address in CR2. */
    uint64_t address;
    /* For RAISE: an IDT vector, 0 to 31. */
    uint8_t vector;
    /* For RAISE: 1 for vectors 8, 10 to 14, 17, 21, 29 and 30, which have an error code, otherwise 0. */
    uint8_t has_error_code;
    /* 0. */
    uint8_t padding[6];
};

/* The status of a guest call. */
typedef uint32_t vector14_guest_status;
#define VECTOR14_GUEST_STATUS_OK 0 /* The call succeeded. */
#define VECTOR14_GUEST_STATUS_NOT_MAPPED 1 /* The guest does not map the virtual address `value`. */
#define VECTOR14_GUEST_STATUS_MALFORMED 2 /* The virtual address `value` is not canonical, or an entry on its walk has a reserved bit set. Also: mapping the page needs an entry at the top level of PAE paging, which the CPU reads only when CR3 is written. */
#define VECTOR14_GUEST_STATUS_OUTSIDE_MEMORY 3 /* The VM has no memory at the physical address `value`: it is MMIO, a hole, or past the end of memory. */
#define VECTOR14_GUEST_STATUS_ALREADY_MAPPED 4 /* The virtual address `value` is already mapped. */
#define VECTOR14_GUEST_STATUS_CONTENDED 5 /* Other vCPUs keep changing the page-table entry of the virtual address `value`. */
#define VECTOR14_GUEST_STATUS_UNALIGNED 6 /* The address `value` is not a multiple of 4096. */
#define VECTOR14_GUEST_STATUS_POOL_EXHAUSTED 7 /* All `value` pages of the pool are in use. */
#define VECTOR14_GUEST_STATUS_NOT_TAKEN 8 /* The page `value` is not one that this hook allocated. */
#define VECTOR14_GUEST_STATUS_UNREADABLE_CODE 9 /* The instruction at `value`, or the descriptor of its code segment, can't be read. */
#define VECTOR14_GUEST_STATUS_NO_INSTRUCTION 10 /* The bytes at `value` do not decode as an instruction. */
#define VECTOR14_GUEST_STATUS_FLUSH 11 /* The vCPUs' translations can't be flushed; `value` is the errno. */
#define VECTOR14_GUEST_STATUS_NO_GUEST 12 /* The fault is a recorded one, and there is no guest. */
#define VECTOR14_GUEST_STATUS_POOL_REFUSED 13 /* KVM refuses memory for more pages of the pool; `value` is the errno. */
#define VECTOR14_GUEST_STATUS_NO_TABLE 14 /* The virtual address `value` has no last-level page table, and Linux can't use one from the pool. The process has to populate a page in the same 2 MiB. */

/* The kind of guest kernel. */
typedef uint32_t vector14_guest_kind;
#define VECTOR14_GUEST_OTHER 0 /* Any other kernel. */
#define VECTOR14_GUEST_LINUX 1 /* Linux. */

/* The result of a guest call: its status, and the address or number that the status refers to. */
struct vector14_guest_result {
    /* The status. */
    vector14_guest_status status;
    /* 0. */
    uint32_t padding;
    /* The value that the status refers to; 0 if the call succeeded. */
    uint64_t value;
};

/* The translation of a virtual address. */
struct vector14_translation {
    /* The physical address. */
    uint64_t address;
    /* Size of the page, in bytes: 4 KiB, 2 MiB or 1 GiB, or 4 MiB in 32-bit paging. */
    uint64_t page_size;
    /* Access rights that the mapping grants: bit 0 writes, 1 user mode, 2 instruction fetches. */
    uint32_t access;
    /* 0. */
    uint32_t padding;
};

/* A leaf mapping, as it was before a change. */
struct vector14_mapping {
    /* Physical address of the page's frame. */
    uint64_t frame;
    /* Size of the page, in bytes: 4 KiB, 2 MiB or 1 GiB, or 4 MiB in 32-bit paging. */
    uint64_t page_size;
    /* Physical address of the leaf's entry. */
    uint64_t slot;
    /* The entry's old value. */
    uint64_t entry;
    /* Access rights that the mapping granted: bit 0 writes, 1 user mode, 2 instruction fetches. */
    uint32_t access;
    /* 1 if the leaf was dirty (the CPU had written to the page), otherwise 0. */
    uint32_t dirty;
};

/* One page-table entry that a walk read. */
struct vector14_table_entry {
    /* Physical address of the entry. */
    uint64_t slot;
    /* The entry's value. */
    uint64_t entry;
    /* Level of the table that holds the entry; entries of level 1 map 4 KiB. */
    uint32_t level;
    /* 0. */
    uint32_t padding;
};

/* How a walk ended: the state of the last entry. */
typedef uint32_t vector14_step;
#define VECTOR14_STEP_LEAF 0 /* The last entry is a leaf; `translation` is filled in. */
#define VECTOR14_STEP_ABSENT 1 /* The last entry is not present. */
#define VECTOR14_STEP_RESERVED 2 /* The last entry has a reserved bit set. */

/* A page walk: every entry that was read, and how the walk ended. */
struct vector14_walk {
    /* The entries that were read, from the top-level table down. */
    vector14_table_entry entries[5];
    /* Number of entries. */
    uint32_t count;
    /* How the walk ended. */
    vector14_step end;
    /* The translation, if the walk ended at a leaf. */
    vector14_translation translation;
};

/* The bytes at the instruction pointer, and the mode in which the CPU executes them. */
struct vector14_code {
    /* Address of the first byte. */
    uint64_t rip;
    /* Number of bytes that could be read. */
    uint32_t count;
    /* Operand and address size: 16, 32 or 64. */
    uint32_t bits;
    /* The bytes; those from `count` on are 0. */
    uint8_t bytes[16];
};

/* System registers of the faulting vCPU, as they were at the fault. */
struct vector14_system_registers {
    /* CR0: paging, and whether write protection applies to the kernel. */
    uint64_t cr0;
    /* CR4: the paging mode, SMEP, SMAP, protection keys. */
    uint64_t cr4;
    /* EFER: long mode, NX. */
    uint64_t efer;
    /* Base of the FS segment. */
    uint64_t fs_base;
    /* Base of the GS segment. */
    uint64_t gs_base;
};

/* The guest, as a hook accesses it. Valid until the function that received it returns, and only on its thread. Virtual
 * addresses are translated by the page tables in the faulting vCPU's CR3 at the exit, or by those set with
 * `use_address_space`. In `on_end` there is no faulting vCPU: registers are zero, and virtual addresses can be used
 * only after `use_address_space`. */
struct vector14_guest {
    /* The functions of the guest; each takes the guest as its first argument. */
    const vector14_guest_calls *calls;
    /* Private to the host. */
    void *context;
};

/* The functions of a guest. If a result's status is not OK, the contents of output arguments are unspecified.
 * Only `flush` and `log` may take long, and `allocate_page` when KVM has to add memory to the guest. */
struct vector14_guest_calls {
    /* General registers of the faulting context, for reading and writing. The guest resumes with these values,
     * whatever the verdict. This is how a skipped instruction gets its results. */
    vector14_registers *(*registers)(vector14_guest *guest);
    /* System registers of the faulting vCPU. */
    void (*system_registers)(vector14_guest *guest, vector14_system_registers *registers);
    /* The kind of guest kernel, detected from the kernel's file. */
    vector14_guest_kind (*kind)(vector14_guest *guest);
    /* The CR3 whose page tables translate virtual addresses. */
    uint64_t (*address_space)(vector14_guest *guest);
    /* Translates virtual addresses by other page tables until the hook returns. `cr3` is not checked: if it is
     * wrong, the first access fails. */
    void (*use_address_space)(vector14_guest *guest, uint64_t cr3);
    /* Walks the page tables for an address and returns every entry, from the top-level table down. An entry that is
     * absent or has a reserved bit set is not a failure: see the walk's `end`. */
    vector14_guest_result (*walk)(vector14_guest *guest, uint64_t address, vector14_walk *walk);
    /* Translates a virtual address. */
    vector14_guest_result (*translate)(vector14_guest *guest, uint64_t address, vector14_translation *translation);
    /* Reads virtual memory; access rights are ignored. Fails as `translate` does, for the first page that fails. */
    vector14_guest_result (*read)(vector14_guest *guest, uint64_t address, void *buffer, size_t length);
    /* Writes virtual memory; access rights are ignored. Fails as `translate` does, for the first page that fails; the
     * pages before it have been written. */
    vector14_guest_result (*write)(vector14_guest *guest, uint64_t address, const void *data, size_t length);
    /* Reads physical memory. */
    vector14_guest_result (*read_physical)(vector14_guest *guest, uint64_t address, void *buffer, size_t length);
    /* Writes physical memory. */
    vector14_guest_result (*write_physical)(vector14_guest *guest, uint64_t address, const void *data, size_t length);
    /* Atomically replaces 8 aligned bytes of physical memory if they equal `current`. Sets `exchanged` to 1 if it did,
     * otherwise to 0. The replacement is atomic for other vCPUs and for the CPU's page walker. Use it for page-table
     * entries that `map`, `unmap` and `protect` can't make, and call `flush` after removing an access right. An
     * address that is not a multiple of 8 is OUTSIDE_MEMORY. */
    vector14_guest_result (*compare_exchange)(vector14_guest *guest, uint64_t address, uint64_t current, uint64_t new_value, uint8_t *exchanged);
    /* Allocates a zeroed 4 KiB page from the pool of host-owned pages, which the guest's own allocator does not know.
     * The guest can access the page by its physical address from then on, even after it is freed. The hook owns the
     * page until it frees it. When a hook is removed from the chain, each page that it still owns is unmapped where
     * `map` last mapped it, and freed; a hook that replaces another inherits its pages. */
    vector14_guest_result (*allocate_page)(vector14_guest *guest, uint64_t *page);
    /* Returns a page to the pool. It must no longer be mapped, and translations to it must have been flushed.
     * The page keeps its contents until it is allocated again. */
    vector14_guest_result (*free_page)(vector14_guest *guest, uint64_t page);
    /* Maps a 4 KiB page to a frame. `access`: bit 0 writes, 1 user mode, 2 instruction fetches. Missing tables
     * are allocated from the pool and stay with the guest; the access rights in existing tables are not changed. In a
     * Linux guest the last-level page table must exist: it does if the process has populated a page in the same 2 MiB,
     * for example with MADV_POPULATE_WRITE. If munmap, exit or fork finds the page in an ordinary mapping, Linux logs
     * "BUG: Bad page map", taints itself and continues; unmap the page first. */
    vector14_guest_result (*map)(vector14_guest *guest, uint64_t page, uint64_t frame, uint32_t access);
    /* Makes the leaf that maps a page absent, whatever its size. vCPUs may use the stale translation until the next
     * `flush`; the VM also flushes when the hook returns. Call `flush` before you read, reuse or free the frame. */
    vector14_guest_result (*unmap)(vector14_guest *guest, uint64_t page, vector14_mapping *mapping);
    /* Sets the access rights of the leaf that maps a page, whatever its size. The tables above it may still withhold
     * rights. vCPUs may use removed rights until the next `flush`. */
    vector14_guest_result (*protect)(vector14_guest *guest, uint64_t page, uint32_t access, vector14_mapping *mapping);
    /* Flushes the translations of every vCPU: after this returns, none uses an older one. It stops every vCPU briefly,
     * so call it once per batch and not once per page. */
    vector14_guest_result (*flush)(vector14_guest *guest);
    /* The bytes of the faulting instruction. */
    vector14_guest_result (*code)(vector14_guest *guest, vector14_code *code);
    /* The faulting instruction in Intel syntax, and its length in bytes. */
    vector14_guest_result (*instruction)(vector14_guest *guest, vector14_sink *text, uint32_t *length);
    /* Nanoseconds since the VM was started. */
    uint64_t (*elapsed)(vector14_guest *guest);
    /* Writes a line to the VM's log under this hook's name. It formats and may block, so do not call it for
     * every fault. */
    void (*log)(vector14_guest *guest, vector14_text message);
    /* Describes a result as text. */
    void (*explain)(vector14_guest *guest, vector14_guest_result result, vector14_sink *text);
};

/* The options of a hook, as its user wrote them in the config file. */
struct vector14_options {
    /* A JSON object with an entry for each option. */
    vector14_text json;
    /* The folder that relative paths in the options are relative to. */
    vector14_text folder;
};

/* An error in a hook's options. */
struct vector14_options_error {
    /* Receives the name of the wrong option; write nothing if the error is about all of them. */
    vector14_sink *key;
    /* Receives the error message: the value that was given, and what is allowed. */
    vector14_sink *message;
};

/* The documentation of one option, for "vector14 hooks" and "vector14 check". */
struct vector14_option_doc {
    /* Key in the hook's table. */
    vector14_text name;
    /* The kind of value, such as "path" or "address". */
    vector14_text value;
    /* The default; no text means that the option is required. */
    vector14_text default_value;
    /* One line that describes the option. */
    vector14_text help;
};

/* The status that a hook's function returns. */
typedef uint32_t vector14_status;
#define VECTOR14_STATUS_OK 0 /* The function succeeded. */
#define VECTOR14_STATUS_FAILED 1 /* The function failed; the text says why. The fault is reinjected with the registers as they were, and the hook is disabled. */
#define VECTOR14_STATUS_PANICKED 2 /* The function panicked, or did the equivalent in its language; the text says why and where. */

/* The sizes of all structs, in bytes, that the library was built with. */
struct vector14_sizes {
    uint32_t descriptor;
    uint32_t text;
    uint32_t sink;
    uint32_t fault;
    uint32_t registers;
    uint32_t verdict;
    uint32_t guest_result;
    uint32_t translation;
    uint32_t mapping;
    uint32_t table_entry;
    uint32_t walk;
    uint32_t code;
    uint32_t system_registers;
    uint32_t guest;
    uint32_t guest_calls;
    uint32_t options;
    uint32_t options_error;
    uint32_t option_doc;
};

/* The sizes of all structs, as this header has them. */
#define VECTOR14_SIZES { \
    sizeof(vector14_descriptor), \
    sizeof(vector14_text), \
    sizeof(vector14_sink), \
    sizeof(vector14_fault), \
    sizeof(vector14_registers), \
    sizeof(vector14_verdict), \
    sizeof(vector14_guest_result), \
    sizeof(vector14_translation), \
    sizeof(vector14_mapping), \
    sizeof(vector14_table_entry), \
    sizeof(vector14_walk), \
    sizeof(vector14_code), \
    sizeof(vector14_system_registers), \
    sizeof(vector14_guest), \
    sizeof(vector14_guest_calls), \
    sizeof(vector14_options), \
    sizeof(vector14_options_error), \
    sizeof(vector14_option_doc) }

/* The start of a descriptor, the same in every version of this interface. */
struct vector14_prefix {
    /* VECTOR14_MAGIC. */
    uint64_t magic;
    /* VECTOR14_VERSION. */
    uint32_t version;
    /* VECTOR14_SIZES. */
    vector14_sizes sizes;
};

/* A kind of hook. A library exports one, under the name vector14_hook. Its functions are called on any thread,
 * `on_fault` on several threads at once. None may throw, longjmp or unwind out. A library is never unloaded. */
struct vector14_descriptor {
    /* VECTOR14_PREFIX. */
    vector14_prefix prefix;
    /* The name of the hook. */
    vector14_text name;
    /* One line that describes the hook. */
    vector14_text summary;
    /* The options that the hook understands. */
    const vector14_option_doc *options;
    /* Number of options. */
    size_t option_count;
    /* Reports errors that `create` would report, as far as possible without side effects: it creates,
     * truncates and starts nothing. NULL: there is nothing to check. */
    vector14_status (*check)(const vector14_options *options, vector14_options_error *error);
    /* Creates a hook. The pointer is passed to the other functions. NULL: there is nothing to create. */
    vector14_status (*create)(const vector14_options *options, void **hook, vector14_options_error *error);
    /* Decides about one fault. The vCPU is stopped until this returns. The text is the reason for STOP or for a
     * failure. */
    vector14_status (*on_fault)(void *hook, const vector14_fault *fault, vector14_guest *guest, vector14_verdict *verdict, vector14_sink *text);
    /* Called once, after the last fault: when the VM has ended, or when the hook has been removed from the chain and
     * no vCPU is in it any more. Flush buffers here, and write back and free pages. It runs on its own thread and must
     * return within the hook's timeout. The text is the report, as JSON: {"tables": [{"title": "", "columns": [""],
     * "rows": [[""]]}], "warnings": [""]}, or nothing. NULL: there is no report. */
    vector14_status (*on_end)(void *hook, vector14_guest *guest, vector14_sink *text);
    /* Frees what `create` made. NULL: there is nothing to free. */
    void (*destroy)(void *hook);
};

/* A text from a literal. */
#define VECTOR14_TEXT(literal) { literal, sizeof(literal) - 1 }

/* What a descriptor begins with. */
#define VECTOR14_PREFIX { VECTOR14_MAGIC, VECTOR14_VERSION, VECTOR14_SIZES }

/* What a library exports. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
extern const vector14_descriptor vector14_hook;

#ifdef __cplusplus
}
#endif

#endif
