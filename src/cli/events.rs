//! `rless events`.

use std::collections::BTreeMap;

use serde_json::json;

use super::format::{self, Row};
use super::human;
use crate::container::events::{self, Event, Kind, Wanted};
use crate::error::{Result, visible};
use crate::store::{Store, short};

/// Show what happens to containers, images and volumes.
///
/// Without --since and --until it begins now and goes on until it is interrupted.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show some only: container=, event=, image=, label=, network=, type=, volume=
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Print JSON (`json`) or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show those after a time, or after a duration ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show those before a time, or until a duration from now has passed
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Go on with those that come (--stream=false: show what there is)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_possible_values = true, action = clap::ArgAction::Set)]
    stream: bool,
    /// Print whole ids
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_possible_values = true, action = clap::ArgAction::Set)]
    no_trunc: bool,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let wanted = Wanted::parse(&args.filter, args.since.as_deref(), args.until.as_deref())?;
    let store = Store::open()?;
    let format = args.format.as_deref().filter(|f| !f.is_empty());
    if format.is_some() {
        // A field that no event has is an error even where there is no event.
        line(&Event::default(), format, true)?;
    }
    let mut result = Ok(());
    events::read(store.data(), &wanted, args.stream, &mut |event| {
        result = line(&event, format, args.no_trunc).and_then(|text| format::print(&text));
        result.is_ok()
    })?;
    result.map(|()| 0)
}

fn line(event: &Event, format: Option<&str>, whole: bool) -> Result<String> {
    match format {
        None => Ok(human_line(event, whole) + "\n"),
        Some(format) if format::JsonForm::of(format).is_some() => {
            Ok(serde_json::to_string(event).unwrap_or_default() + "\n")
        }
        Some(template) => {
            let text = format::object(&row(event), Some(template))?;
            Ok(text.unwrap_or_default())
        }
    }
}

/// As podman prints it, but always one line: labels, names and what a health check said are not ours.
fn human_line(event: &Event, whole: bool) -> String {
    visible(&human_text(event, whole), &[])
}

fn human_text(event: &Event, whole: bool) -> String {
    let id = if whole { &event.id } else { short(&event.id) };
    let time = human::date(event.at());
    let (kind, status, name) = (event.kind.word(), &event.status, &event.name);
    match event.kind {
        Kind::Container => {
            let mut text = format!(
                "{time} {kind} {status} {id} (image={}, name={name}",
                event.image
            );
            if event.status == "health_status" {
                let streak = event.failing_streak.unwrap_or(0);
                text += &format!(
                    ", health_status={}, health_failing_streak={streak}, health_log={}",
                    event.health, event.health_log
                );
            }
            for (key, value) in event.attributes.iter().flatten() {
                text += &format!(", {key}={value}");
            }
            text + ")"
        }
        Kind::Image => {
            let text = format!("{time} {kind} {status} {id} {name} {}", event.error);
            text.trim_end().to_owned()
        }
        Kind::Volume => format!("{time} {kind} {status} {name}"),
        Kind::Network => {
            format!(
                "{time} {kind} {status} {id} (container={id}, name={})",
                event.network
            )
        }
        Kind::System => format!("{time} {kind} {status} {name}")
            .trim_end()
            .to_owned(),
    }
}

fn row(event: &Event) -> Row {
    let none = BTreeMap::new();
    json!({
        "ContainerExitCode": event.exit_code.map_or_else(|| json!(""), |code| json!(code)),
        "ID": event.id,
        "Image": event.image,
        "Name": event.name,
        "Network": event.network,
        "Status": event.status,
        "Time": event.time,
        "TimeNano": event.nanos,
        "Type": event.kind.word(),
        "HealthStatus": event.health,
        "Error": event.error,
        "PodID": "",
        "Attributes": event.attributes.as_ref().unwrap_or(&none),
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::events::Action;

    fn event() -> Event {
        Event {
            id: "0123456789abcdef".into(),
            name: "n".into(),
            image: "i".into(),
            attributes: Some(BTreeMap::from([("a".into(), "b".into())])),
            exit_code: Some(3),
            ..Event::new(Kind::Container, Action::Died)
        }
    }

    #[test]
    fn lines_are_podman_s() {
        let text = human_line(&event(), false);
        assert!(
            text.ends_with(" container died 0123456789ab (image=i, name=n, a=b)"),
            "{text}"
        );
        let image = Event::image("abc", "x:1", Action::Pull);
        assert!(human_line(&image, true).ends_with(" image pull abc x:1"));
        let volume = Event::volume("v", Action::Create);
        assert!(human_line(&volume, true).ends_with(" volume create v"));
    }

    #[test]
    fn templates_and_json_see_every_field() {
        let show = |format| line(&event(), Some(format), true).unwrap();
        assert_eq!(
            show("{{.ID}} {{.Status}} {{.Type}} {{.ContainerExitCode}} {{.Attributes.a}}"),
            "0123456789abcdef died container 3 b\n"
        );
        let json: Event = serde_json::from_str(&show("json")).unwrap();
        assert_eq!(json, json);
        assert_eq!(json.exit_code, Some(3));
        assert!(line(&event(), Some("{{.Nope}}"), true).is_err());
    }
}
