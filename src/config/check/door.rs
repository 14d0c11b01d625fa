//! From `[door]` and `[[schedule]]` as written to a door as meant.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::access::schedule::INTERVALS_MAX;
use crate::access::schedule::Interval;
use crate::access::schedule::Schedule;
use crate::config::CameraConfig;
use crate::config::check::Checker;
use crate::config::check::optional;
use crate::config::door::Direction;
use crate::config::door::DoorBackend;
use crate::config::door::DoorConfig;
use crate::config::door::InputLine;
use crate::config::door::LockType;
use crate::config::door::OutputLine;
use crate::config::door::Wiegand;
use crate::config::door::Wiring;
use crate::config::raw::ConfigError;
use crate::config::raw::door::RawDoor;
use crate::config::raw::door::RawSchedule;
use crate::door::WiegandTiming;
use crate::door::strike::ExitAction;
use crate::door::strike::Relock;
use crate::door::strike::StrikeOptions;

/// The schedule that every configuration has.
const ALWAYS: &str = "always";
/// Most schedules.
const SCHEDULES_MAX: usize = 64;
/// Highest line number: more than any board has.
const LINE_MAX: u32 = 1023;
/// Time for which a contact must be steady, by the door contract.
const CONTACT_DEBOUNCE: Duration = Duration::from_millis(50);
/// Time for which a button must be steady, by the door contract.
const BUTTON_DEBOUNCE: Duration = Duration::from_millis(100);

impl Checker<'_> {
    /// What `[door]` and `[[schedule]]` mean.
    pub(super) fn door(
        &self,
        raw: &RawDoor,
        schedules: &[RawSchedule],
        device_name: &str,
        cameras: &[CameraConfig],
    ) -> Result<DoorConfig, ConfigError> {
        let schedules = self.schedules(schedules)?;
        let backend = self.word(
            "door.backend",
            &raw.backend,
            &[
                ("none", DoorBackend::None),
                ("simulated", DoorBackend::Simulated),
                ("auto", DoorBackend::Auto),
                ("rppal", DoorBackend::Rppal),
                ("chardev", DoorBackend::Chardev),
            ],
        )?;
        let direction = self.word(
            "door.direction",
            &raw.direction,
            &[("entry", Direction::Entry), ("exit", Direction::Exit)],
        )?;
        for name in &raw.cameras {
            if !cameras.iter().any(|camera| &camera.name == name) {
                let reason = format!("`{name}` is no [[camera]]");
                return Err(self.wrong("door.cameras", reason));
            }
        }
        let schedule = match raw.schedule.as_str() {
            ALWAYS | "" => None,
            name => Some(schedules.iter().find(|known| known.name == name).cloned().ok_or_else(
                || self.wrong("door.schedule", format!("there is no [[schedule]] `{name}`")),
            )?),
        };
        Ok(DoorConfig {
            backend,
            name: optional(&raw.name).unwrap_or_else(|| device_name.to_string()),
            cameras: raw.cameras.clone(),
            direction,
            wiring: self.wiring(raw)?,
            strike: self.strike(raw)?,
            face_px_min: self.within("door.min_face_px", raw.min_face_px, 40..=2000)?,
            schedule,
            schedules,
            pin_file: optional(&raw.pin_file).map(PathBuf::from),
            remote_without_pin: raw.remote_without_pin,
            allow_bare_commands: raw.allow_bare_commands,
        })
    }

    fn schedules(&self, raw: &[RawSchedule]) -> Result<Vec<Schedule>, ConfigError> {
        self.within("schedule", raw.len(), 0..=SCHEDULES_MAX)?;
        let mut names = HashSet::from([ALWAYS]);
        let mut schedules = Vec::new();
        for (index, schedule) in raw.iter().enumerate() {
            let key = |name: &str| format!("schedule[{index}].{name}");
            if schedule.name.is_empty() || !names.insert(&schedule.name) {
                let reason = format!("`{}` is empty, used twice, or reserved", schedule.name);
                return Err(self.wrong(&key("name"), reason));
            }
            let zone = TimeZone::get(&schedule.time_zone).map_err(|_| {
                let reason = format!("`{}` is no IANA time zone", schedule.time_zone);
                self.wrong(&key("time_zone"), reason)
            })?;
            self.within(&key("weekly"), schedule.weekly.len(), 1..=INTERVALS_MAX)?;
            let intervals = schedule.weekly.iter().map(|text| Interval::parse(text));
            let intervals: Result<_, _> = intervals.collect();
            let intervals =
                intervals.map_err(|error| self.wrong(&key("weekly"), error.to_string()))?;
            schedules.push(Schedule::new(&schedule.name, zone, intervals));
        }
        Ok(schedules)
    }

    fn strike(&self, raw: &RawDoor) -> Result<StrikeOptions, ConfigError> {
        let seconds = |key: &str, value: u32, range: std::ops::RangeInclusive<u32>| {
            let value = self.within(&format!("door.{key}"), value, range)?;
            Ok(Duration::from_secs(value.into()))
        };
        let unlock = seconds("unlock_s", raw.unlock_s, 1..=255)?;
        let energised_max = seconds("max_energised_s", raw.max_energised_s, 1..=600)?;
        if energised_max < unlock {
            return Err(self.wrong("door.max_energised_s", "must not be below `door.unlock_s`"));
        }
        let held_open = seconds("held_open_s", raw.held_open_s, 0..=255)?;
        let pre_alarm = seconds("pre_alarm_s", raw.pre_alarm_s, 0..=255)?;
        Ok(StrikeOptions {
            unlock,
            energised_max,
            unlocked_max: seconds("unlocked_max_s", raw.unlocked_max_s, 60..=86_400)?,
            held_open: (!held_open.is_zero()).then_some(held_open),
            pre_alarm: pre_alarm.min(held_open),
            relock: self.word(
                "door.relock",
                &raw.relock,
                &[
                    ("on_open", Relock::OnOpen),
                    ("on_close", Relock::OnClose),
                    ("timeout", Relock::Timeout),
                ],
            )?,
            exit: match raw.rex.as_str() {
                "shunt_only" => ExitAction::ShuntOnly,
                _ => ExitAction::Unlock,
            },
            fail_alarm_n: self.within("door.fail_alarm_n", raw.fail_alarm_n, 0..=100)?,
            fail_window: seconds("fail_window_s", raw.fail_window_s, 1..=3600)?,
            lockout: seconds("lockout_s", raw.lockout_s, 1..=3600)?,
            contact_debounce: CONTACT_DEBOUNCE,
            button_debounce: BUTTON_DEBOUNCE,
        })
    }

    fn wiring(&self, raw: &RawDoor) -> Result<Wiring, ConfigError> {
        let wiring = Wiring {
            chip: raw.chip.trim().to_string(),
            relay_line: raw.relay_line,
            active_high: self.word(
                "door.active",
                &raw.active,
                &[("high", true), ("low", false)],
            )?,
            lock_type: self.word(
                "door.lock_type",
                &raw.lock_type,
                &[("fail_safe", LockType::FailSafe), ("fail_secure", LockType::FailSecure)],
            )?,
            contact: self.input(
                "door.contact",
                &raw.contact,
                raw.contact_line,
                &[("none", None), ("no", Some(true)), ("nc", Some(false))],
            )?,
            exit: self.input(
                "door.rex",
                &raw.rex,
                raw.rex_line,
                &[("none", None), ("unlock", Some(true)), ("shunt_only", Some(true))],
            )?,
            tamper: self.input(
                "door.tamper",
                &raw.tamper,
                raw.tamper_line,
                &[("none", None), ("nc", Some(false))],
            )?,
            bell: self.input(
                "door.bell",
                &raw.bell,
                raw.bell_line,
                &[("none", None), ("no", Some(true))],
            )?,
            wiegand: self.wiegand(raw)?,
            led: self.output("door.led", &raw.led, raw.led_line)?,
            buzzer: self.output("door.buzzer", &raw.buzzer, raw.buzzer_line)?,
        };
        let inputs = [wiring.contact, wiring.exit, wiring.tamper, wiring.bell];
        let inputs = inputs.into_iter().flatten().map(|input| input.line);
        let outputs = [wiring.led, wiring.buzzer].into_iter().flatten().map(|output| output.line);
        let wiegand = wiring.wiegand.iter().flat_map(|wiegand| [wiegand.d0_line, wiegand.d1_line]);
        let mut used = HashSet::new();
        for line in inputs.chain(outputs).chain(wiegand).chain([wiring.relay_line]) {
            self.within("door", line, 0..=LINE_MAX)?;
            if !used.insert(line) {
                return Err(self.wrong("door", format!("line {line} is used twice")));
            }
        }
        Ok(wiring)
    }

    fn input(
        &self,
        key: &str,
        word: &str,
        line: u32,
        words: &[(&str, Option<bool>)],
    ) -> Result<Option<InputLine>, ConfigError> {
        let kind = self.word(key, word, words)?;
        Ok(kind.map(|closed_means_true| InputLine { line, closed_means_true }))
    }

    fn output(&self, key: &str, word: &str, line: u32) -> Result<Option<OutputLine>, ConfigError> {
        let words = [("none", None), ("high", Some(true)), ("low", Some(false))];
        let active = self.word(key, word, &words)?;
        Ok(active.map(|active_high| OutputLine { line, active_high }))
    }

    fn wiegand(&self, raw: &RawDoor) -> Result<Option<Wiegand>, ConfigError> {
        let bits = self.word(
            "door.wiegand",
            &raw.wiegand,
            &[("none", None), ("26", Some(26)), ("34", Some(34))],
        )?;
        let micros = |key: &str, value: u32, range: std::ops::RangeInclusive<u32>| {
            let value = self.within(&format!("door.{key}"), value, range)?;
            Ok(Duration::from_micros(value.into()))
        };
        let facility_max = if bits == Some(34) { 65_535 } else { 255 };
        let Some(bits) = bits else { return Ok(None) };
        let timing = WiegandTiming {
            pulse: micros("wiegand_pulse_us", raw.wiegand_pulse_us, 20..=100)?,
            interval: micros("wiegand_interval_us", raw.wiegand_interval_us, 200..=20_000)?,
        };
        let facility = self.within("door.facility_code", raw.facility_code, 0..=facility_max)?;
        Ok(Some(Wiegand {
            bits,
            d0_line: raw.wiegand_d0_line,
            d1_line: raw.wiegand_d1_line,
            timing,
            facility_code: facility,
        }))
    }

    /// The meaning of a word out of a list.
    fn word<T: Copy>(&self, key: &str, word: &str, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let known = words.iter().find(|(known, _)| *known == word);
        known.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let list: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
            self.wrong(key, format!("`{word}` is none of {}", list.join(", ")))
        })
    }
}
