/* Leaves on the C stack what a reader of frames that are gone may take for a pointer: words just below the
 * end of the address space, and non-zero bytes besides. */
#include <stdint.h>

void fill_stack(int parity) {
    volatile uint64_t words[1500];
    for (int i = 0; i < 1500; i++) {
        words[i] = (i + parity) & 1 ? UINT64_MAX : UINT64_C(0x0505050505050505);
    }
}
