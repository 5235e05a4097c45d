//! Any text as an image name or platform: an error, or a name that is read back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rless::image::platform::Platform;
use rless::image::reference::{Name, Reference};

fuzz_target!(|text: &str| {
    match Name::parse(text) {
        Ok(Name::Full(reference)) => {
            let written = reference.to_string();
            assert_eq!(Reference::parse(&written).as_ref(), Ok(&reference));
            assert!(!reference.path().contains(".."), "{written}");
        }
        Ok(Name::Short(short)) => {
            // A host makes it longer, perhaps too long.
            if let Ok(full) = short.at("localhost") {
                assert!(short.is_short_for(&full));
            }
        }
        Err(_) => {}
    }
    if let Ok(platform) = Platform::parse(text) {
        assert!(platform.fit(&platform).is_some(), "{platform}");
    }
});
