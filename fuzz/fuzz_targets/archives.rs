//! Any bytes as an archive, compressed or not: it is refused, or written below one directory and nowhere else.
//!
//! The first byte says whether it is a tree, a layer of an image, or an archive of images.

#![no_main]

use std::{fs::File, io::Write as _, rc::Rc, sync::Arc};

use libfuzzer_sys::fuzz_target;

mod importing;
mod linux;

use importing::{BOUNDS, import, read_twice};

fuzz_target!(|input: &[u8]| {
    let [kind, archive @ ..] = input else {
        return;
    };
    if kind % 4 == 2 {
        return read_images(archive);
    }
    let is_layer = kind % 2 == 1;
    read_twice(1, &|_, sink| {
        import::image::read_archive(archive, is_layer, BOUNDS, sink).map(drop)
    });
});

fn read_images(archive: &[u8]) {
    let path = importing::place().join("images");
    let mut file = File::create_new(&path).expect("make a file");
    file.write_all(archive).expect("write a file");
    let file = Arc::new(File::open(path).expect("open a file"));
    let unwatched: Rc<dyn Fn(u64) -> bool> = Rc::new(|_| true);
    if let Ok(Some(image)) = import::image::Image::in_archive(&file, None) {
        read_twice(image.layers.len(), &|layer, sink| {
            let layer = &image.layers[layer];
            image.read_layer(layer, BOUNDS, sink, &unwatched).map(drop)
        });
    }
}
