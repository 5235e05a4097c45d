//! How a pull shows itself on standard error: bars on a terminal, podman's lines otherwise, nothing with `-q`.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::image::registry::Notice;
use crate::store::{LayerEvent, Progress, Silent};

/// The progress that fits standard error.
pub(crate) fn for_stderr(quiet: bool) -> Box<dyn Progress> {
    if quiet {
        Box::new(Silent)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bars::new())
    } else {
        Box::new(Lines)
    }
}

/// One line per event.
struct Lines;

impl Progress for Lines {
    fn message(&self, text: &str) {
        super::warn(text);
    }

    fn layer(&self, digest: &str, event: LayerEvent) {
        match event {
            LayerEvent::Started(_) => super::warn(&format!("Copying blob {digest}")),
            LayerEvent::Done => super::warn(&format!("Copying blob {digest} done")),
            LayerEvent::Present => {
                super::warn(&format!("Copying blob {digest} skipped: already exists"));
            }
            LayerEvent::Waiting => super::warn(&format!(
                "Copying blob {digest}: waiting for another rless that fetches it"
            )),
            LayerEvent::Bytes(_) => {}
        }
    }

    fn notice(&self) -> Notice {
        Arc::new(super::warn)
    }
}

/// A bar per layer.
struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn new() -> Bars {
        Bars {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            bars: Mutex::default(),
        }
    }

    fn bar(&self, digest: &str) -> ProgressBar {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(digest.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::no_length());
            let hex = digest.rsplit(':').next().unwrap_or(digest);
            bar.set_prefix(crate::store::short(hex).to_owned());
            bar.set_style(style("Copying blob {prefix} {msg}"));
            bar
        });
        bar.clone()
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl Progress for Bars {
    fn message(&self, text: &str) {
        drop(self.all.println(text));
    }

    fn layer(&self, digest: &str, event: LayerEvent) {
        let bar = self.bar(digest);
        match event {
            LayerEvent::Waiting => bar.set_message("waiting for another rless that fetches it"),
            LayerEvent::Started(size) => {
                bar.set_length(size);
                bar.set_message("");
                bar.set_style(style(
                    "Copying blob {prefix} [{bar:30}] {bytes} / {total_bytes} | {bytes_per_sec}",
                ));
            }
            LayerEvent::Bytes(bytes) => bar.set_position(bytes),
            LayerEvent::Done => {
                bar.set_style(style("Copying blob {prefix} {msg}"));
                bar.finish_with_message("done");
            }
            LayerEvent::Present => {
                bar.finish_with_message("skipped: already exists");
            }
        }
    }

    fn notice(&self) -> Notice {
        let all = self.all.clone();
        Arc::new(move |text| drop(all.println(text)))
    }
}
