//! See `thin_metadata` in the library beside this.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| suture_fuzz::thin_metadata(data));
