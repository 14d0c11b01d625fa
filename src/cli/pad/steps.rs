//! What is shown to the camera, in which order.

use crate::eval::liveness::dataset::ATTACK;
use crate::eval::liveness::dataset::BONA_FIDE;

/// The attacks of a test that names none.
pub const SPECIES: [&str; 4] = ["print", "phone-screen", "tablet", "mask"];

/// Longest name of a species in characters: it is a folder and a column of a table.
const SPECIES_CHARS_MAX: usize = 40;

/// The steps without an attack: what people at a door differ by.
const PEOPLE: [(&str, &str); 6] = [
    ("near", "Stand as near to the camera as somebody who rings the bell. Look at it."),
    ("arms-length", "Stand an arm's length from where you stood. Look at the camera."),
    ("glasses-off", "Without glasses, look at the camera and move your head a little."),
    (
        "glasses-on",
        "With glasses, look at the camera and move your head a little. Skip it if there are none.",
    ),
    ("turned", "Turn your head slightly, slowly from side to side, up and down."),
    ("dim-light", "Darken the room, or wait for dusk: as dark as it gets when somebody comes."),
];

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where its frames lie, below the recording.
    pub folder: String,
    /// What to do.
    pub instruction: String,
}

/// All steps: first people, then attacks.
pub fn steps(species: &[String]) -> Vec<Step> {
    let people = PEOPLE.iter().map(|(name, instruction)| Step {
        folder: format!("{BONA_FIDE}/{name}"),
        instruction: (*instruction).into(),
    });
    let attacks = species
        .iter()
        .map(|name| Step { folder: format!("{ATTACK}/{name}"), instruction: instruction(name) });
    people.chain(attacks).collect()
}

fn instruction(species: &str) -> String {
    let show = match species {
        "print" => "Hold a printed photograph of a face before the camera, as large as life.",
        "phone-screen" => "Show a photograph or a video of a face on a phone, bright.",
        "tablet" => "Show a photograph or a video of a face on a tablet or a laptop, bright.",
        "mask" => {
            return "Put on a paper or rubber mask of a face, or a photograph with holes for the \
                    eyes. Come nearer, go back, turn and tilt your head: try to get in."
                .into();
        }
        other => return format!("Show the attack `{other}`. {}", everything()),
    };
    format!("{show} {}", everything())
}

fn everything() -> &'static str {
    "Stay out of the picture yourself; move it nearer and farther, tilt and bend it: try to get in."
}

/// A name that may be a folder.
pub fn species(name: &str) -> Result<String, String> {
    let may = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let known = (1..=SPECIES_CHARS_MAX).contains(&name.len()) && name.chars().all(may);
    if known { Ok(name.into()) } else { Err("expected small letters, digits and hyphens".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_step_has_a_folder_of_its_own_and_says_what_to_do() {
        let all = steps(&SPECIES.map(String::from));
        let folders: BTreeSet<&str> = all.iter().map(|step| step.folder.as_str()).collect();
        assert_eq!((all.len(), folders.len()), (10, 10));
        assert_eq!(all[0].folder, "bona-fide/near");
        assert_eq!(all[9].folder, "attack/mask");
        assert!(all.iter().all(|step| step.instruction.len() > 20));
        // Whoever wears a mask is in the picture.
        let hidden: Vec<bool> =
            all[6..].iter().map(|step| step.instruction.contains("Stay out")).collect();
        assert_eq!(hidden, [true, true, true, false]);
        let own = steps(&["3d-bust".into()]);
        assert!(own[6].instruction.contains("`3d-bust`"), "{own:?}");
    }

    #[test]
    fn a_species_cannot_lead_out_of_the_folder() {
        for good in ["print", "3d-mask", "a_b"] {
            assert_eq!(species(good).as_deref(), Ok(good));
        }
        let long = "x".repeat(41);
        for bad in ["", "..", "a/b", "Print", "a b", "é", long.as_str()] {
            species(bad).unwrap_err();
        }
    }
}
