//! Any bytes as an archive, compressed or not: it is refused, or written below one directory and nowhere else.
//!
//! The first byte says whether it is a layer of an image.

#![no_main]

use libfuzzer_sys::fuzz_target;

mod importing;
mod linux;

use importing::{BOUNDS, import, read_twice};

fuzz_target!(|input: &[u8]| {
    if let [kind, archive @ ..] = input {
        let is_layer = kind % 2 == 1;
        read_twice(1, &|_, sink| {
            import::image::read_archive(archive, is_layer, BOUNDS, sink).map(drop)
        });
    }
});
