#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mqtt_codec_fuzz::one_packet(mqtt_codec::Version::V5, data));
