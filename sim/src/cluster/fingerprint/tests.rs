use super::*;

#[test]
fn fingerprints_are_those_of_farmhash_at_every_length_class() {
    let bytes: Vec<u8> = (0..300_u32).map(|index| (index * 7 + 1) as u8).collect();
    let known = [
        (0, 0x9AE1_6A3B_2F90_404F),
        (1, 0x47A2_4C13_B17E_583E),
        (3, 0x26B4_DA35_6B8B_9558),
        (4, 0xEFC8_3E8C_71DF_5AF5),
        (7, 0x1FAF_A9ED_D289_AE25),
        (8, 0xD442_A22F_EEC8_439A),
        (16, 0x0DB0_C6C6_CFC9_CC97),
        (17, 0x33FC_E0BE_F0C3_17A9),
        (32, 0x3FF7_80B3_3FA8_801A),
        (33, 0x9A5B_1C0F_F4A3_8467),
        (64, 0x111F_A872_3E25_ADCA),
        (65, 0x0366_AB60_67B5_70B1),
        (127, 0x3F0E_D94D_C9C5_D70C),
        (128, 0xCE22_F72C_75B9_2BBF),
        (129, 0x3DAC_9153_FD00_8293),
        (300, 0xFBD0_E797_A70B_C97C),
    ];
    for (len, expected) in known {
        assert_eq!(fingerprint(&bytes[..len]), expected, "of {len} bytes");
    }
}
