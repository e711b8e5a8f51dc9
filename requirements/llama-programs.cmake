# Of llama.cpp's programs the server, the two benchmarks, the chat and the quantizer, each beside the libraries of the
# Python package, where it finds them. Read after project() of llama.cpp; what is deferred comes when its CMakeLists has
# added all programs.
set(LLAMA_PROGRAMS llama-server llama-bench llama-batched-bench llama-cli llama-quantize)
set(LLAMA_PROGRAMS_LIBRARIES llama-common mtmd)
foreach(program IN LISTS LLAMA_PROGRAMS)
  list(APPEND LLAMA_PROGRAMS_LIBRARIES ${program}-impl)
endforeach()

function(llama_programs_only)
  get_property(folders DIRECTORY tools PROPERTY SUBDIRECTORIES)
  foreach(folder IN LISTS folders)
    get_property(targets DIRECTORY ${folder} PROPERTY BUILDSYSTEM_TARGETS)
    foreach(target IN LISTS targets)
      set_target_properties(${target} PROPERTIES EXCLUDE_FROM_ALL TRUE)
    endforeach()
  endforeach()
  set(wanted ${LLAMA_PROGRAMS} ${LLAMA_PROGRAMS_LIBRARIES})
  set_target_properties(${wanted} PROPERTIES EXCLUDE_FROM_ALL FALSE BUILD_WITH_INSTALL_RPATH TRUE INSTALL_RPATH "$ORIGIN")
  install(TARGETS ${wanted} LIBRARY DESTINATION ${SKBUILD_PLATLIB_DIR}/llama_cpp/lib
                            RUNTIME DESTINATION ${SKBUILD_PLATLIB_DIR}/llama_cpp/lib)
endfunction()
cmake_language(DEFER CALL llama_programs_only)
