# What llama-cpp-python's build leaves out here: the C++ helpers of llama.cpp's own programs ("common", two thirds
# of the build), which no library that the Python package loads is linked with. Its CMakeLists sets the cached
# variable to ON, whatever CMAKE_ARGS says; a normal variable, set after project() as here, stands before it.
set(LLAMA_BUILD_COMMON OFF)
