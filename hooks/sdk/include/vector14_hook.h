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

/* The general registers of the context that faulted, as they will be when it goes on. */
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
    /* The first byte. NULL: there is no text, which is not the same as an empty one. */
    const char *bytes;
    /* How many bytes there are. */
    size_t length;
};

/* Takes text. The caller of a function lends it for the time of the call. */
struct vector14_sink {
    /* Adds bytes to the text; they are copied. The first argument is `context`. */
    void (*write)(void *context, const char *bytes, size_t length);
    /* Whatever `write` needs. */
    void *context;
};

/* One guest page fault, with the context that it interrupted. */
struct vector14_fault {
    /* Position among all faults of this VM, from 0. */
    uint64_t sequence;
    /* The linear address whose access faulted (CR2). */
    uint64_t address;
    /* The faulting instruction. */
    uint64_t rip;
    /* Stack pointer of the interrupted context. */
    uint64_t rsp;
    /* Flags of the interrupted context. */
    uint64_t rflags;
    /* Root of the page tables in force. */
    uint64_t cr3;
    /* The vCPU that faulted, from 0 to 7. */
    uint32_t vcpu;
    /* The error code of the #PF: bit 0 present, 1 write, 2 user, 3 reserved bit, 4 fetch. */
    uint32_t error_code;
    /* Selector of the interrupted code segment; its low two bits are the CPL. */
    uint16_t cs;
    /* Selector of the interrupted stack segment. */
    uint16_t ss;
    /* 0. */
    uint32_t padding;
};

/* What happens with a fault. */
typedef uint32_t vector14_verdict_kind;
#define VECTOR14_VERDICT_PASS 0 /* No opinion: the next hook is asked. */
#define VECTOR14_VERDICT_REINJECT 1 /* The guest's own handler runs, with what the CPU would have shown it. */
#define VECTOR14_VERDICT_REINJECT_AS 2 /* The guest's own handler runs, with `address` and `error_code` of the verdict. */
#define VECTOR14_VERDICT_RESOLVE 3 /* The instruction is tried again; the guest's handler never runs. */
#define VECTOR14_VERDICT_SKIP 4 /* The instruction has no effect, and the next one runs. */
#define VECTOR14_VERDICT_RAISE 5 /* The exception `vector` of the verdict is raised instead of #PF. */
#define VECTOR14_VERDICT_STOP 6 /* The VM stops; the text says why. */

/* A verdict. It is PASS and all 0 when `on_fault` is called. */
struct vector14_verdict {
    /* Which one. */
    vector14_verdict_kind kind;
    /* For REINJECT_AS, and for RAISE where `has_error_code` is set. */
    uint32_t error_code;
    /* For REINJECT_AS. */
    uint64_t address;
    /* For RAISE: an IDT vector, 0 to 31. */
    uint8_t vector;
    /* For RAISE: 1 where the exception comes with an error code, otherwise 0. */
    uint8_t has_error_code;
    /* 0. */
    uint8_t padding[6];
};

/* How a call of the guest's ended. */
typedef uint32_t vector14_guest_status;
#define VECTOR14_GUEST_STATUS_OK 0 /* Well. */
#define VECTOR14_GUEST_STATUS_NOT_MAPPED 1 /* The guest does not map the virtual address `value`. */
#define VECTOR14_GUEST_STATUS_MALFORMED 2 /* A reserved bit on the way, or a virtual address `value` that is not canonical. */
#define VECTOR14_GUEST_STATUS_OUTSIDE_MEMORY 3 /* There is no memory at the physical address `value`. */
#define VECTOR14_GUEST_STATUS_ALREADY_MAPPED 4 /* The virtual address `value` is mapped already. */
#define VECTOR14_GUEST_STATUS_CONTENDED 5 /* Other vCPUs change the page-table entry of the virtual address `value` all the time. */
#define VECTOR14_GUEST_STATUS_UNALIGNED 6 /* The address `value` is not a multiple of 4096. */
#define VECTOR14_GUEST_STATUS_POOL_EXHAUSTED 7 /* All `value` pages of the pool are in use. */
#define VECTOR14_GUEST_STATUS_NOT_TAKEN 8 /* The page `value` is none that this hook has taken. */
#define VECTOR14_GUEST_STATUS_UNREADABLE_CODE 9 /* The instruction at `value` can't be read. */
#define VECTOR14_GUEST_STATUS_NO_INSTRUCTION 10 /* The bytes at `value` are no instruction. */
#define VECTOR14_GUEST_STATUS_FLUSH 11 /* The vCPUs' translations can't be flushed; `value` is the errno. */
#define VECTOR14_GUEST_STATUS_NO_GUEST 12 /* There is a recorded fault and no guest. */
#define VECTOR14_GUEST_STATUS_POOL_REFUSED 13 /* KVM refuses memory for more pages of the pool; `value` is the errno. */
#define VECTOR14_GUEST_STATUS_NO_TABLE 14 /* The virtual address `value` has no last-level page table, and Linux can't use one of the pool's. */

/* What kind of guest it is. */
typedef uint32_t vector14_guest_kind;
#define VECTOR14_GUEST_OTHER 0 /* None of the below. */
#define VECTOR14_GUEST_LINUX 1 /* Linux. */

/* How a call of the guest's ended, and the address or number that this is about. */
struct vector14_guest_result {
    /* How it ended. */
    vector14_guest_status status;
    /* 0. */
    uint32_t padding;
    /* What it is about; 0 where all is well. */
    uint64_t value;
};

/* Where a virtual address leads. */
struct vector14_translation {
    /* The physical address. */
    uint64_t address;
    /* Size of the page, in bytes: 4 KiB, 2 MiB or 1 GiB. */
    uint64_t page_size;
    /* What the mapping allows: bit 0 writes, 1 user mode, 2 instruction fetches. */
    uint32_t access;
    /* 0. */
    uint32_t padding;
};

/* A leaf of the page tables as it was before it was changed. */
struct vector14_mapping {
    /* Physical address of the page's frame. */
    uint64_t frame;
    /* Size of the page, in bytes: 4 KiB, 2 MiB or 1 GiB. */
    uint64_t page_size;
    /* Physical address of the leaf's entry. */
    uint64_t slot;
    /* The entry. */
    uint64_t entry;
    /* What the mapping allowed: bit 0 writes, 1 user mode, 2 instruction fetches. */
    uint32_t access;
    /* 1 where the CPU had written through it, otherwise 0. */
    uint32_t dirty;
};

/* A page-table entry on the way to an address. */
struct vector14_table_entry {
    /* Physical address of the entry. */
    uint64_t slot;
    /* The entry. */
    uint64_t entry;
    /* Level of its table; level 1 maps 4 KiB. */
    uint32_t level;
    /* 0. */
    uint32_t padding;
};

/* Where a walk ended: at the last of its entries. */
typedef uint32_t vector14_step;
#define VECTOR14_STEP_LEAF 0 /* It is a leaf; `translation` is filled in. */
#define VECTOR14_STEP_ABSENT 1 /* It is not present. */
#define VECTOR14_STEP_RESERVED 2 /* It has a reserved bit. */

/* A walk through the page tables, entry by entry. */
struct vector14_walk {
    /* The entries that were read, from the top-level table down. */
    vector14_table_entry entries[5];
    /* How many of them there are. */
    uint32_t count;
    /* Where it ended. */
    vector14_step end;
    /* Where the address leads, if it ended at a leaf. */
    vector14_translation translation;
};

/* The bytes of an instruction, and those behind it. */
struct vector14_code {
    /* Where the first byte is. */
    uint64_t rip;
    /* How many bytes could be read. */
    uint32_t count;
    /* Operand and address size: 16, 32 or 64. */
    uint32_t bits;
    /* The bytes; those from `count` on are 0. */
    uint8_t bytes[16];
};

/* What else decides how the faulting instruction ran. */
struct vector14_system_registers {
    /* CR0: paging, and whether read-only pages hold for the kernel. */
    uint64_t cr0;
    /* CR4: the paging mode, SMEP, SMAP, protection keys. */
    uint64_t cr4;
    /* EFER: long mode, NX. */
    uint64_t efer;
    /* Where FS begins. */
    uint64_t fs_base;
    /* Where GS begins. */
    uint64_t gs_base;
};

/* The guest, while a fault waits for its verdict. Valid until the function returns that was given it, on its thread. */
struct vector14_guest {
    /* What can be done with it; each function takes the guest itself as its first argument. */
    const vector14_guest_calls *calls;
    /* The host's. */
    void *context;
};

/* What can be done with a guest. Where a result's status is not OK, what it should have filled in is unspecified. */
struct vector14_guest_calls {
    /* The interrupted registers. What is written to them is in force when the guest goes on. */
    vector14_registers *(*registers)(vector14_guest *guest);
    /* System registers of the vCPU that faulted. */
    void (*system_registers)(vector14_guest *guest, vector14_system_registers *registers);
    /* What kind of guest it is. */
    vector14_guest_kind (*kind)(vector14_guest *guest);
    /* The page tables that virtual addresses go through. */
    uint64_t (*address_space)(vector14_guest *guest);
    /* Sends virtual addresses through other page tables, until the hook returns. */
    void (*use_address_space)(vector14_guest *guest, uint64_t cr3);
    /* Every page-table entry on the way to an address. */
    vector14_guest_result (*walk)(vector14_guest *guest, uint64_t address, vector14_walk *walk);
    /* Where an address leads. */
    vector14_guest_result (*translate)(vector14_guest *guest, uint64_t address, vector14_translation *translation);
    /* Reads virtual memory, without regard to rights. */
    vector14_guest_result (*read)(vector14_guest *guest, uint64_t address, void *buffer, size_t length);
    /* Writes virtual memory, without regard to rights. */
    vector14_guest_result (*write)(vector14_guest *guest, uint64_t address, const void *data, size_t length);
    /* Reads physical memory. */
    vector14_guest_result (*read_physical)(vector14_guest *guest, uint64_t address, void *buffer, size_t length);
    /* Writes physical memory. */
    vector14_guest_result (*write_physical)(vector14_guest *guest, uint64_t address, const void *data, size_t length);
    /* Replaces 8 aligned bytes of physical memory that still are `current`; `exchanged` is 1 where they were, otherwise 0. */
    vector14_guest_result (*compare_exchange)(vector14_guest *guest, uint64_t address, uint64_t current, uint64_t new_value, uint8_t *exchanged);
    /* Takes a zeroed page of 4 KiB from the pool of host-owned pages. */
    vector14_guest_result (*allocate_page)(vector14_guest *guest, uint64_t *page);
    /* Gives such a page back, which must not be mapped any more. */
    vector14_guest_result (*free_page)(vector14_guest *guest, uint64_t page);
    /* Maps a page of 4 KiB to a frame; `access`: bit 0 writes, 1 user mode, 2 instruction fetches. In a Linux guest the last-level
     * page table must be there, and the kernel complains of the page when it finds it. */
    vector14_guest_result (*map)(vector14_guest *guest, uint64_t page, uint64_t frame, uint32_t access);
    /* Makes the leaf that maps a page absent. */
    vector14_guest_result (*unmap)(vector14_guest *guest, uint64_t page, vector14_mapping *mapping);
    /* Gives the leaf that maps a page other rights. */
    vector14_guest_result (*protect)(vector14_guest *guest, uint64_t page, uint32_t access, vector14_mapping *mapping);
    /* Makes every vCPU forget its translations. */
    vector14_guest_result (*flush)(vector14_guest *guest);
    /* The bytes of the instruction that faulted. */
    vector14_guest_result (*code)(vector14_guest *guest, vector14_code *code);
    /* The instruction that faulted, as Intel writes it, and its length in bytes. */
    vector14_guest_result (*instruction)(vector14_guest *guest, vector14_sink *text, uint32_t *length);
    /* Nanoseconds since the VM was started. */
    uint64_t (*elapsed)(vector14_guest *guest);
    /* Writes a line to the VM's log under this hook's name. */
    void (*log)(vector14_guest *guest, vector14_text message);
    /* Puts a result into words. */
    void (*explain)(vector14_guest *guest, vector14_guest_result result, vector14_sink *text);
};

/* The options of a hook, as its user wrote them in the config file. */
struct vector14_options {
    /* A JSON object with an entry for each option. */
    vector14_text json;
    /* The folder that relative paths among them start from. */
    vector14_text folder;
};

/* What is wrong with a hook's options. */
struct vector14_options_error {
    /* Takes the name of the option at fault; nothing: it is all of them together. */
    vector14_sink *key;
    /* Takes what was got and what is allowed. */
    vector14_sink *message;
};

/* What is known of one option, for "vector14 hooks" and "vector14 check". */
struct vector14_option_doc {
    /* Key in the hook's table. */
    vector14_text name;
    /* What it takes, in a word. */
    vector14_text value;
    /* What holds when it is not given; no text: it must be. */
    vector14_text default_value;
    /* One line on what it does. */
    vector14_text help;
};

/* How a function of a hook's ended. */
typedef uint32_t vector14_status;
#define VECTOR14_STATUS_OK 0 /* Well. */
#define VECTOR14_STATUS_FAILED 1 /* Not well; the text says why. The fault is reinjected, and the hook left out. */
#define VECTOR14_STATUS_PANICKED 2 /* It panicked, or what its language has in the place of that; the text says why and where. */

/* The sizes of all structs, in bytes, as the library knows them. */
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

/* What a descriptor begins with in every version of this interface. */
struct vector14_prefix {
    /* VECTOR14_MAGIC. */
    uint64_t magic;
    /* VECTOR14_VERSION. */
    uint32_t version;
    /* VECTOR14_SIZES. */
    vector14_sizes sizes;
};

/* A kind of hook. A library exports one, under the name vector14_hook. The functions are called on any thread, `on_fault` from
 * several at once; none may throw, jump or unwind out of itself. A library is never unloaded. */
struct vector14_descriptor {
    /* VECTOR14_PREFIX. */
    vector14_prefix prefix;
    /* What to call the hook. */
    vector14_text name;
    /* One line on what it does. */
    vector14_text summary;
    /* The options that it understands. */
    const vector14_option_doc *options;
    /* How many there are. */
    size_t option_count;
    /* Finds what `create` would object to, without leaving a trace. NULL: nothing. */
    vector14_status (*check)(const vector14_options *options, vector14_options_error *error);
    /* Makes a hook, whatever that is: the other functions get it back. NULL: there is nothing to be made. */
    vector14_status (*create)(const vector14_options *options, void **hook, vector14_options_error *error);
    /* Decides about one fault. The text is the reason of STOP, or of a failure. */
    vector14_status (*on_fault)(void *hook, const vector14_fault *fault, vector14_guest *guest, vector14_verdict *verdict, vector14_sink *text);
    /* Called once, after the last fault. The text is the report, as JSON:
     * {"tables": [{"title": "", "columns": [""], "rows": [[""]]}], "warnings": [""]}, or nothing. NULL: there is none. */
    vector14_status (*on_end)(void *hook, vector14_guest *guest, vector14_sink *text);
    /* Frees what `create` made. NULL: there is nothing to be freed. */
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
