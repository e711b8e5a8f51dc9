# What llama-cpp-python's build leaves out here: the C++ helpers of llama.cpp's own programs ("common", two thirds
# of the build), which no library that the Python package loads is linked with. Its CMakeLists sets the cached
# variable to ON, whatever CMAKE_ARGS says; a normal variable, set after project() as here, stands before it.
set(LLAMA_BUILD_COMMON OFF)

# On a processor with AMX a GCC with this fault makes a library that crashes; see the header.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include ${CMAKE_CURRENT_LIST_DIR}/gcc_tile_config.h>")
endif()
