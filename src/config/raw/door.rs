//! `[door]` and `[[schedule]]` as written.

use serde::{Deserialize, Serialize};

/// `[door]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawDoor {
    /// `none`, `simulated`, `auto`, `rppal` or `chardev`; default `none`.
    pub backend: String,
    /// Default empty: the device's name.
    pub name: String,
    /// Names of cameras; default empty: all.
    pub cameras: Vec<String>,
    /// `entry` or `exit`; default `entry`.
    pub direction: String,
    /// Default empty: the first chip that has the lines.
    pub chip: String,
    /// Default 17.
    pub relay_line: u32,
    /// `high` or `low`; default `high`.
    pub active: String,
    /// `fail_safe` or `fail_secure`; default `fail_secure`.
    pub lock_type: String,
    /// Seconds of an opening, 1 to 255; default 5.
    pub unlock_s: u32,
    /// Most seconds the relay is energised by openings, 1 to 600; default 30.
    pub max_energised_s: u32,
    /// Most seconds in the mode `unlocked`, 60 to 86400; default 14400.
    pub unlocked_max_s: u32,
    /// Seconds, 0 to 255, 0: off; default 30.
    pub held_open_s: u32,
    /// Seconds before `held_open_s`, 0 to 255; default 10.
    pub pre_alarm_s: u32,
    /// `on_open`, `on_close` or `timeout`; default `on_close`.
    pub relock: String,
    /// `none`, `no` or `nc`; default `none`.
    pub contact: String,
    /// Default 27.
    pub contact_line: u32,
    /// `none`, `unlock` or `shunt_only`; default `none`.
    pub rex: String,
    /// Default 22.
    pub rex_line: u32,
    /// `none` or `nc`; default `none`.
    pub tamper: String,
    /// Default 23.
    pub tamper_line: u32,
    /// `none` or `no`; default `none`.
    pub bell: String,
    /// Default 24.
    pub bell_line: u32,
    /// `none`, `high` or `low`; default `none`.
    pub led: String,
    /// Default 25.
    pub led_line: u32,
    /// `none`, `high` or `low`; default `none`.
    pub buzzer: String,
    /// Default 12.
    pub buzzer_line: u32,
    /// Failed attempts, 0 to 100, 0: never; default 5.
    pub fail_alarm_n: u32,
    /// Seconds in which they count, 1 to 3600; default 60.
    pub fail_window_s: u32,
    /// Seconds of the lock-out, 1 to 3600; default 60.
    pub lockout_s: u32,
    /// Least width of a face in pixels, 40 to 2000; default 80.
    pub min_face_px: u32,
    /// Name of a `[[schedule]]`; default `always`.
    pub schedule: String,
    /// Default empty: the systemd credential `door.pin`, if there is one.
    pub pin_file: String,
    /// Default `false`.
    pub remote_without_pin: bool,
    /// Default `false`.
    pub allow_bare_commands: bool,
    /// `none`, `26` or `34`; default `none`.
    pub wiegand: String,
    /// Default 5.
    pub wiegand_d0_line: u32,
    /// Default 6.
    pub wiegand_d1_line: u32,
    /// Microseconds, 20 to 100; default 50.
    pub wiegand_pulse_us: u32,
    /// Microseconds, 200 to 20000; default 2000.
    pub wiegand_interval_us: u32,
    /// Default 0.
    pub facility_code: u32,
}

/// One `[[schedule]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawSchedule {
    /// Unique, not `always`; default `office_hours`.
    pub name: String,
    /// IANA name; default `UTC`.
    pub time_zone: String,
    /// Intervals; default `["mon-fri 08:00-18:00"]`.
    pub weekly: Vec<String>,
}

impl Default for RawDoor {
    fn default() -> Self {
        let none = || "none".to_string();
        Self {
            backend: none(),
            name: String::new(),
            cameras: Vec::new(),
            direction: "entry".into(),
            chip: String::new(),
            relay_line: 17,
            active: "high".into(),
            lock_type: "fail_secure".into(),
            unlock_s: 5,
            max_energised_s: 30,
            unlocked_max_s: 14_400,
            held_open_s: 30,
            pre_alarm_s: 10,
            relock: "on_close".into(),
            contact: none(),
            contact_line: 27,
            rex: none(),
            rex_line: 22,
            tamper: none(),
            tamper_line: 23,
            bell: none(),
            bell_line: 24,
            led: none(),
            led_line: 25,
            buzzer: none(),
            buzzer_line: 12,
            fail_alarm_n: 5,
            fail_window_s: 60,
            lockout_s: 60,
            min_face_px: 80,
            schedule: "always".into(),
            pin_file: String::new(),
            remote_without_pin: false,
            allow_bare_commands: false,
            wiegand: none(),
            wiegand_d0_line: 5,
            wiegand_d1_line: 6,
            wiegand_pulse_us: 50,
            wiegand_interval_us: 2000,
            facility_code: 0,
        }
    }
}

impl Default for RawSchedule {
    fn default() -> Self {
        Self {
            name: "office_hours".into(),
            time_zone: "UTC".into(),
            weekly: vec!["mon-fri 08:00-18:00".into()],
        }
    }
}
