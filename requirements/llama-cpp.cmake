# What is built of llama.cpp here: the libraries that the Python package loads, and from the same source the server.
# Read after project() of llama-cpp-python, whose CMakeLists says what else there could be.
set(LLAMA_BUILD_TOOLS ON)
set(LLAMA_BUILD_SERVER ON)
set(LLAMA_BUILD_UI OFF)         # the server's web page,
set(LLAMA_USE_PREBUILT_UI OFF)  # which would be downloaded
set(LLAMA_OPENSSL OFF)          # it listens on loopback only
set(MTMD_VIDEO OFF)
set(CMAKE_PROJECT_llama.cpp_INCLUDE ${CMAKE_CURRENT_LIST_DIR}/llama-programs.cmake)

# On a processor with AMX a GCC with this fault makes a library that crashes; see the header.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include ${CMAKE_CURRENT_LIST_DIR}/gcc_tile_config.h>")
endif()
