//! Libraries that are loaded into suture before libc, to do something to it at a certain call: suture itself knows nothing of
//! them.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use xtask::vm::Vm;

/// Goes behind what does something at the `delete` message to a thin pool: `before_delete` and `after_delete`.
pub(crate) const AT_DELETE: &str = r#"
#include <dlfcn.h>
#include <stdarg.h>

int ioctl(int fd, unsigned long number, ...) {
    va_list arguments;
    va_start(arguments, number);
    char *request = va_arg(arguments, char *);
    va_end(arguments);
    int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    /* DM_TARGET_MSG; the data begin where the header says, the text after a sector number. */
    int is_delete = (number & 0xffff) == 0xfd0e && !strncmp(request + *(unsigned *)(request + 16) + 8, "delete ", 7);
    if (is_delete) before_delete();
    int result = next(fd, number, request);
    if (is_delete) after_delete();
    return result;
}
"#;

/// Makes a library of these pieces of C, and puts it into the guest.
pub(crate) fn preload(vm: &Vm, library: &str, pieces: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (source, made) = (folder.path().join("library.c"), folder.path().join("library.so"));
    std::fs::write(&source, pieces.concat())?;
    let status = Command::new("gcc")
        .args(["-D_GNU_SOURCE", "-shared", "-fPIC", "-O1", "-o"])
        .arg(&made)
        .arg(&source)
        .arg("-ldl")
        .status()
        .context("starting gcc")?;
    ensure!(status.success(), "gcc does not take {library}");
    vm.write_file(library, std::fs::read(&made)?, 0o755)
}
