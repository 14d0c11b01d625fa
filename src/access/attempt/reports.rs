//! Who was reported when: the memory that makes one event of a person who stands there. Pure.
//!
//! People are remembered by name, wherever their face shows up and however often its track breaks.

use std::{collections::HashMap, time::Duration};

use crate::clock::Moment;
use crate::gallery::names::PersonId;

/// Most reported people that are remembered; the one not seen for longest goes, and would be
/// reported again.
pub const PERSONS_MAX: usize = 4096;

/// All reported people.
#[derive(Debug)]
pub struct Reports {
    cooldown: Duration,
    people: HashMap<PersonId, Reported>,
}

/// When a person was last seen, for each kind of report that was made; `None`: not made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reported {
    /// Reported as recognised.
    pub matched: Option<Moment>,
    /// From when on the person may be reported as recognised again although still there: the door
    /// was denied for a reason that passes.
    pub again: Option<Moment>,
    /// How often that has happened since the person came.
    pub denials: u32,
    /// Reported as denied.
    pub denied: Option<Moment>,
    /// Reported as a suspected attack.
    pub spoofed: Option<Moment>,
    /// When a frame last looked like an attack with this person's face.
    pub attacked: Option<Moment>,
}

impl Reports {
    /// Nobody was reported.
    pub fn new(cooldown: Duration) -> Self {
        Self { cooldown, people: HashMap::new() }
    }

    /// What was reported of a person.
    pub fn of(&self, person: &PersonId) -> Reported {
        self.people.get(person).copied().unwrap_or_default()
    }

    /// Number of people that are remembered, at most [`PERSONS_MAX`].
    pub fn len(&self) -> usize {
        self.people.len()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    /// The person is seen: reports that are younger than the cool-down stay young, older ones are
    /// forgotten. A face that looks like an attack keeps nobody's reports young but those of
    /// attacks, or a photograph on a wall would silence the person it shows.
    pub fn refresh(&mut self, person: &PersonId, is_attack: bool, now: Moment) {
        let cooldown = self.cooldown;
        let Some(reported) = self.people.get_mut(person) else { return };
        for (stamp, keeps_young) in [
            (&mut reported.matched, !is_attack),
            (&mut reported.denied, !is_attack),
            (&mut reported.spoofed, true),
        ] {
            let Some(last_seen) = *stamp else { continue };
            if now.since(last_seen) >= cooldown {
                *stamp = None;
            } else if keeps_young {
                *stamp = Some(now);
            }
        }
    }

    /// The entry of a person, to note a report.
    pub fn remember(&mut self, person: &PersonId, now: Moment) -> &mut Reported {
        if self.people.len() >= PERSONS_MAX && !self.people.contains_key(person) {
            let cooldown = self.cooldown;
            self.people.retain(|_, reported| now.since(reported.latest()) < cooldown);
            if self.people.len() >= PERSONS_MAX {
                let oldest = self.people.iter().min_by_key(|(_, reported)| reported.latest());
                let oldest = oldest.map(|(person, _)| person.clone());
                oldest.map(|person| self.people.remove(&person));
            }
        }
        self.people.entry(person.clone()).or_default()
    }
}

impl Reported {
    fn latest(&self) -> Moment {
        [self.matched, self.denied, self.spoofed, self.attacked]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or_default()
    }
}
