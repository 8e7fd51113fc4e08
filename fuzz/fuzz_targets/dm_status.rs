//! See `dm_status` in the library beside this.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| suture_fuzz::dm_status(data));
