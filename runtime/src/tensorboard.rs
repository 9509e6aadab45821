//! TensorBoard event files: scalars as `Event` protocol buffers in TFRecord frames.

use crate::lease::host_name;
use crate::rundir::{At, FileError};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes one event file. TensorBoard merges all files of a folder, so each attempt of a run has its own.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
    event: Vec<u8>,
    frame: Vec<u8>,
}

impl EventWriter {
    /// A new file in `dir`. Events of step `from_step` and later in older files are hidden by it: a resumed run
    /// repeats them.
    pub fn create(dir: &Path, attempt: u64, from_step: u64) -> Result<EventWriter, FileError> {
        fs::create_dir_all(dir).at("create", dir)?;
        let now = wall_time();
        let file_name = format!(
            "events.out.tfevents.{:010}.{}.{}.{attempt}",
            now as u64,
            host_name(),
            std::process::id()
        );
        let path = dir.join(file_name);
        let file = OpenOptions::new().create_new(true).append(true).open(&path).at("create", &path)?;
        let mut writer = EventWriter { path, file, event: Vec::new(), frame: Vec::new() };
        writer.start_event(now, 0);
        field_bytes(&mut writer.event, 3, b"brain.Event:2");
        writer.finish_event()?;
        writer.start_event(now, from_step);
        // session_log { status: START }
        field_bytes(&mut writer.event, 7, &[0x08, 0x01]);
        writer.finish_event()?;
        Ok(writer)
    }

    /// Appends scalars of one step.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f32)]) -> Result<(), FileError> {
        self.start_event(wall_time(), step);
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut entry = Vec::new();
            field_bytes(&mut entry, 1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend(value.to_le_bytes());
            field_bytes(&mut summary, 1, &entry);
        }
        field_bytes(&mut self.event, 5, &summary);
        self.finish_event()
    }

    fn start_event(&mut self, wall_time: f64, step: u64) {
        self.event.clear();
        self.event.push(1 << 3 | 1);
        self.event.extend(wall_time.to_le_bytes());
        self.event.push(2 << 3);
        varint(&mut self.event, step);
    }

    fn finish_event(&mut self) -> Result<(), FileError> {
        self.frame.clear();
        let length = (self.event.len() as u64).to_le_bytes();
        self.frame.extend(length);
        self.frame.extend(masked_crc(&length).to_le_bytes());
        self.frame.extend(&self.event);
        self.frame.extend(masked_crc(&self.event).to_le_bytes());
        self.file.write_all(&self.frame).at("append to", &self.path)
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// A length-delimited field of a protocol buffer.
fn field_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The checksum of TFRecord frames: CRC-32C, rotated and shifted so that a checksum of data with checksums is sound.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of a file: (step, bytes of the event), with both checksums compared.
    fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut at, mut events) = (0, Vec::new());
        while at < bytes.len() {
            let u32_at = |i: usize| u32::from_le_bytes(bytes[i..i + 4].try_into().unwrap());
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            assert_eq!(u32_at(at + 8), masked_crc(&bytes[at..at + 8]));
            let event = &bytes[at + 12..at + 12 + length];
            assert_eq!(u32_at(at + 12 + length), masked_crc(event));
            events.push(event.to_vec());
            at += 16 + length;
        }
        events
    }

    #[test]
    fn frames_hold_the_events_that_tensorboard_reads() {
        // The check value of CRC-32C, and the start of every event file that TensorFlow writes.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_crc(&24u64.to_le_bytes()).to_le_bytes(), *b"\xa3\x7fK\"");
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), 1, 300).unwrap();
        writer.scalars(300, &[("loss/train", 1.5)]).unwrap();
        let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        assert!(path.file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
        let events = frames(&fs::read(path).unwrap());
        assert_eq!(events.len(), 3);
        assert_eq!(events[0][9..], [&[0x10, 0, 0x1a, 13][..], b"brain.Event:2"].concat());
        assert_eq!(events[1][9..], [0x10, 0xac, 0x02, 0x3a, 2, 0x08, 1]);
        let value = [&[0x0a, 17, 0x0a, 10][..], b"loss/train", &[0x15], &1.5f32.to_le_bytes()].concat();
        assert_eq!(events[2][9..], [&[0x10, 0xac, 0x02, 0x2a, 19][..], &value].concat());
    }
}
