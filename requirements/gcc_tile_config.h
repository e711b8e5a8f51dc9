/* GCC before 14 (11.5, 12.4 and 13.3 have it mended) says of AMX's ldtilecfg and sttilecfg that they touch 8 bytes of
   the 64 (https://gcc.gnu.org/PR114098). Stores to the other bytes may then come after the instruction that reads them,
   and the first tile instruction of llama.cpp ends the process as an illegal one. Here both touch all 64. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 14 && defined(__AMX_TILE__)
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%X0" : : "m"(*(const char(*)[64])(config)))
#define _tile_storeconfig(config) __asm__ volatile("sttilecfg\t%X0" : "=m"(*(char(*)[64])(config)))
#endif
