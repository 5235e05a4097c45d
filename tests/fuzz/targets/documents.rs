//! Any bytes as what a registry or a configuration file says: an error, or something that can be used.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rless::image::auth::AuthFile;
use rless::image::challenge;
use rless::image::manifest::{self, Document};
use rless::image::platform::Platform;
use rless::image::reference::{Name, Reference};
use rless::image::registries::Registries;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    match kind % 4 {
        0 => {
            if let Ok(Document::Index(index)) = manifest::parse(bytes, None) {
                drop(index.choose(&Platform::host()));
            }
        }
        1 => drop(AuthFile::parse(bytes)),
        2 => {
            drop(challenge::choose(text.lines()));
            if let Ok(token) = challenge::token(bytes) {
                assert!(token.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
        _ => {
            let mut conf = Registries::default();
            drop(conf.merge(&text, Path::new("x")));
            for name in ["a", "docker.io/a/b:c", "h:5000/x"] {
                drop(conf.candidates(&Name::parse(name).expect("a name")));
            }
            let reference = Reference::parse("a.b.io/c/d:1").expect("a name");
            drop(conf.endpoints(&reference));
        }
    }
});
