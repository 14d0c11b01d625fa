//! Whether the models at work may open the door.
//!
//! A pack that is not for a door (`builtin`) may come to run without anybody having chosen it, because
//! the files of another one are not there. Then the door works on, by button and by command, and
//! faces open nothing. What the pack can do, a liveness check for one, makes no difference.

use crate::config::Config;
use crate::config::door::DoorBackend;
use crate::inference::manifest::STANDARD;
use crate::recognition::RecognitionInfo;

/// What the conjunct `works` says where faces open nothing.
pub const NOT_FOR_DOOR: &str = "the model pack is not for a door";

/// Why faces open nothing, and what to do; `None`: they may.
pub fn refusal(config: &Config, models: &RecognitionInfo) -> Option<String> {
    refusal_of(config, &models.pack, models.is_for_door)
}

/// As [`refusal`], before a pack is read.
pub fn refusal_of(config: &Config, pack: &str, is_for_door: bool) -> Option<String> {
    let is_refused = is_unfit(config, is_for_door) && !config.models.allow_builtin_pack_on_door;
    is_refused.then(|| {
        format!(
            "the model pack `{pack}` is not for a door, so faces open nothing: {}, or \
             models.allow_builtin_pack_on_door = true where that is acceptable",
            remedy(config)
        )
    })
}

/// What the configuration accepts: that a pack opens a door with real wires for which it is not;
/// `None`: nothing of the kind.
pub fn concession_of(config: &Config, pack: &str, is_for_door: bool) -> Option<String> {
    let is_accepted = is_unfit(config, is_for_door) && config.models.allow_builtin_pack_on_door;
    is_accepted.then(|| {
        format!(
            "faces open the door with the model pack `{pack}`, which is not for a door \
             (models.allow_builtin_pack_on_door)"
        )
    })
}

/// How to come to the pack that is for a door.
pub fn remedy(config: &Config) -> String {
    let install = format!("facelatch models install --pack {STANDARD}");
    if config.models.pack == STANDARD {
        return install;
    }
    format!("{install}, and models.pack = \"{STANDARD}\"")
}

fn is_unfit(config: &Config, is_for_door: bool) -> bool {
    let has_wires = !matches!(config.door.backend, DoorBackend::None | DoorBackend::Simulated);
    has_wires && !is_for_door
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check;
    use crate::config::raw;
    use crate::inference::manifest::Manifest;
    use crate::recognition::info;
    use crate::recognition::scripted;

    fn config(text: &str) -> Config {
        let raw = raw::read("test", text, std::iter::empty()).unwrap();
        check::config("test", raw).unwrap()
    }

    #[test]
    fn only_wires_ask_for_a_pack_that_is_for_a_door() {
        let allowed = "[models]\nallow_builtin_pack_on_door = true\n";
        for (backend, models, is_refused) in [
            ("none", "", false),
            ("simulated", "", false),
            ("auto", "", true),
            ("rppal", "", true),
            ("chardev", "", true),
            ("auto", allowed, false),
            ("rppal", allowed, false),
            ("chardev", allowed, false),
        ] {
            let config = config(&format!("[door]\nbackend = \"{backend}\"\n{models}"));
            let refusal = refusal_of(&config, "builtin", false);
            assert_eq!(refusal.is_some(), is_refused, "{backend} {models}");
            let is_accepted = config.models.allow_builtin_pack_on_door;
            let concession = concession_of(&config, "builtin", false);
            assert_eq!(concession.is_some(), is_accepted, "{backend} {models}");
            assert_eq!(refusal_of(&config, "standard", true), None, "{backend}");
            assert_eq!(concession_of(&config, "standard", true), None, "{backend}");
            for word in ["`builtin`", "models install", "models.allow_builtin_pack_on_door"] {
                assert!(refusal.as_ref().is_none_or(|text| text.contains(word)), "{refusal:?}");
            }
        }
    }

    #[test]
    fn the_remedy_changes_the_configuration_where_it_names_another_pack() {
        assert_eq!(remedy(&config("")), "facelatch models install --pack standard");
        let chosen = remedy(&config("[models]\npack = \"builtin\"\n"));
        assert!(chosen.ends_with("and models.pack = \"standard\""), "{chosen}");
    }

    /// Whatever the pack can do: a liveness check makes it no pack for a door.
    #[test]
    fn a_liveness_check_does_not_lift_the_refusal() {
        let config = config("[door]\nbackend = \"auto\"\n");
        let mut models = info(&scripted::pack());
        assert!(models.has_liveness && refusal(&config, &models).is_none());
        models.is_for_door = false;
        assert!(refusal(&config, &models).is_some());
    }

    #[test]
    fn of_the_packs_builtin_alone_is_not_for_a_door() {
        let packs = Manifest::embedded().packs();
        let unfit: Vec<&str> =
            packs.filter(|(_, pack)| pack.not_for_door).map(|(name, _)| name).collect();
        assert_eq!(unfit, ["builtin"]);
    }
}
