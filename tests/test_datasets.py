"""Every database's format and quirks, on small trees and sheets in that very format."""

from __future__ import annotations

import base64
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
from database_trees import CASME2_HEADER, SAMM_HEADER, casme2, write_frames, write_xlsx

from train.__main__ import main
from train.datasets import LOADERS, DatasetError, load, select
from train.datasets.check import DatabaseName
from train.datasets.sample import SIMULATED_MARK
from train.datasets.sheets import read_table

GOOD = ("01", "EP02_01f", 46, 59, 86, "12", "happiness")


def one_clip(root: Path, first: int = 46, last: int = 86) -> Path:
    write_frames(root / "Cropped/sub01/EP02_01f", range(first, last + 1), "reg_img{}.jpg")
    return root


# -- CASME II ------------------------------------------------------------------------------------------


def test_casme2(tmp_path: Path):
    root = one_clip(casme2(tmp_path, [GOOD], [(1, "EP02_01f", 7)]))
    database = load("casme2", root)
    (sample,) = database.samples
    assert (sample.subject, sample.clip, sample.fps) == ("sub01", "EP02_01f", 200.0)
    assert (sample.onset, sample.apex, sample.offset) == (46, 59, 86)
    assert sample.paths is not None and sample.paths[1] == root / "Cropped/sub01/EP02_01f/reg_img59.jpg"
    assert sample.units == ("12",) and sample.emotion == "happiness"
    assert sample.objective == "VII", "the official class wins over the action units"
    assert sample.source.endswith("sheet Sheet1, row 2")
    assert not database.missing and not database.repaired and not database.simulated


def test_casme2_row_without_official_class(tmp_path: Path):
    root = one_clip(casme2(tmp_path, [GOOD], [(2, "EP02_01f", 7)]))
    database = load("casme2", root)
    assert database.samples[0].objective == "I"
    assert "row 2: not in CASME2-ObjectiveClasses" in database.repaired[0]


def test_numbers_from_zero(tmp_path: Path):
    root = casme2(tmp_path, [(1, "EP02_01f", 0, 0, 86, "12", "happiness")], [(1, "EP02_01f", 1)])
    (sample,) = load("casme2", one_clip(root, 0, 90)).samples
    assert (sample.onset, sample.apex, sample.offset) == (0, None, 86)


def test_casme2_raw_frames_and_derived_class(tmp_path: Path):
    root = casme2(tmp_path, [(1, "EP02_01f ", 46.0, 59.0, 86.0, 12, "happiness")])
    write_frames(root / "sub01/ep02_01F", range(1, 101))
    database = load("casme2", root)
    (sample,) = database.samples
    assert sample.objective == "I" and sample.paths is not None
    assert sample.paths[0].name == "img46.jpg"
    assert len(database.repaired) == 1 and "derived" in database.repaired[0]


def test_casme2_apex_slash_or_on_the_onset_is_missing(tmp_path: Path):
    rows = [(1, "EP02_01f", 46, "/", 86, "12", "happiness"), (1, "B", 46, 46, 86, "4", "disgust")]
    root = one_clip(casme2(tmp_path, rows, [(1, "EP02_01f", 1), (1, "B", 3)]))
    write_frames(root / "Cropped/sub01/B", range(46, 87), "reg_img{}.jpg")
    database = load("casme2", root)
    assert [sample.apex_missing for sample in database.samples] == [True, True]
    (note,) = database.repaired
    assert "row 3" in note and "taken as missing" in note


@pytest.mark.parametrize("row_number", [60, 61])
@pytest.mark.parametrize("given", [30, 191])
def test_casme2_known_wrong_offset(tmp_path: Path, row_number: int, given: int):
    rows: list[Sequence[object]] = [(1, f"C{k}", 46, 59, 86, "12", "happiness") for k in range(1, 63)]
    rows[row_number - 1] = (1, "EP02_01f", 46, "/", given, "12", "happiness")
    root = one_clip(casme2(tmp_path, rows, [(1, row[1], 1) for row in rows]), 46, 95)
    database = load("casme2", root)
    (sample,) = database.samples
    assert sample.offset == 91
    assert "91 is taken" in database.repaired[0]
    assert len(database.missing) == 61


def test_wrong_offsets_elsewhere_are_not_guessed(tmp_path: Path):
    rows = [GOOD, (1, "B", 46, 59, 30, "4", "disgust")]
    root = one_clip(casme2(tmp_path, rows))
    write_frames(root / "Cropped/sub01/B", range(46, 96), "reg_img{}.jpg")
    (line,) = load("casme2", root).missing
    assert "row 3" in line and "out of order" in line and "correct the sheet" in line


def test_other_releases_of_the_sheet(tmp_path: Path):
    one_clip(tmp_path)
    header = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Emotion")
    path = write_xlsx(tmp_path / "CASME2_label_Ver_2.xlsx", [header, GOOD])
    assert len(load("casme2", tmp_path).samples) == 1
    path.unlink()
    write_xlsx(
        tmp_path / "CASME2-coding-20190701.xlsx",
        [CASME2_HEADER, (*GOOD[:2], None, *GOOD[2:5], None, *GOOD[5:])],
    )
    assert len(load("casme2", tmp_path).samples) == 1
    elsewhere = write_xlsx(tmp_path / "other/mine.xlsx", [header, GOOD])
    assert load("casme2", tmp_path, elsewhere).sheet == elsewhere


def test_official_classes_lie_beside_the_sheet_that_is_named(tmp_path: Path):
    root = one_clip(casme2(tmp_path / "root", [GOOD]))
    named = casme2(tmp_path / "sheets", [GOOD], [(1, "EP02_01f", 7)]) / "CASME2-coding-20140508.xlsx"
    (derived,), (official,) = load("casme2", root).samples, load("casme2", root, named).samples
    assert derived.objective != "VII" and official.objective == "VII"


OLD_FORMAT = (
    r"c-rk)O-NKx6#nj;A7>^VXKV~K5D~I+gk~zJjgAwjn^H@nkibTL+T=JRGb2=svTT+?(5h%7xM^dx>3>nX7J-qAAPBUUt%8CUI"
    r"<Irj`(d;e4wRI<?{UvPKli+I-@E7jy!Un?xHS8)ei`e~4hM>w7w!_BpyD-!0LZRsk~M1&70t$f1+Rw&((S_Ysy7vK4CQz)L%"
    r"{>*E26+BDrYc>o=jS8+(aDVJ|u+fLmN?nyQJ}>j(b(ZbeQROruVt!3#J{cxxuuJ+AfI!EW~<R4jWl~T4`dNAM(DB+2;dmqNv"
    r"4dnZ;Lb3calh@oX}Y`Zo;?&PvRI#;sdTtJy?q2_YK5Iega|fp6waec5R1H&-t}`X6ic6~EEnQk=jvw6mPx1xm<Dr#=b$&#7u"
    r"Yx`HumBUu(2<^HLm^XhP(mf5akN=+vwR2R^j&Z&9wichK+X!7=sj*?8d96w1OofDaSGLt5c&c4Y0!ANwJ5@;V84u%hfk47WJ"
    r"jU;npQ@OlPuI;=Q1lFttRXj&3iH@L}`5@1f0Il{b_rAV6Hq;jzWX&|M|N1VmOFkGhT$LW=>}QL@RNlIU`7qOKeAk`K*E0=Ke"
    r"pB7tS8Fg`Gu-AnTbn7)0mfo%cL~3T_`;XtPZ|oJV|$68?_RzXntvagMHB5>Bjhiy8MKO4ap$(g)0kNcV@3JMwC<PH#iIm_zH"
    r"7!-SdCTqm<=-3CHZ!QB`L<c(j^B;4oh;9<g_FgNiIurljJs{igi&hD?ZlgEo6JaQRQ3JZ8GXJ%O<0GESrovAWWN#>a|+Rs4{"
    r"xHQiDf4R2?OIzYjKS*sx*4h7B7wwgQB4E_d*m6nqMG8>e*nUuTs{(f&=cWpM%-y7Kg4+KDvPSzIhDe|Eqn%zKFq`k4O<B~DT"
    r"FEXFa!{TMGhf9bnTls?af9Rq)E3Y8nbSWZ9xa{QlU3*86"
)
"""An .xls file of one row, written by xlwt; compressed, base 85."""


def test_the_old_spreadsheet_format(tmp_path: Path):
    one_clip(tmp_path)
    data = zlib.decompress(base64.b85decode(OLD_FORMAT))
    (tmp_path / "CASME2_label_Ver_2.xls").write_bytes(data)
    (sample,) = load("casme2", tmp_path).samples
    assert sample.units == ("4", "7", "L10") and sample.apex_missing


# -- what is wrong, and where ---------------------------------------------------------------------------


def test_missing_folder_and_missing_images(tmp_path: Path):
    rows = [GOOD, (2, "EP01", 1, 5, 9, "4", "disgust"), (1, "B", 46, 59, 86, "4", "disgust")]
    root = one_clip(casme2(tmp_path, rows))
    write_frames(root / "Cropped/sub01/B", range(46, 70), "reg_img{}.jpg")
    first, second = load("casme2", root).missing
    assert "row 3" in first and str(root / "Cropped/sub02/EP01") in first and "unpack" in first
    assert "row 4" in second and "no image of the offset, number 86" in second and "46 to 69" in second


def test_a_frame_without_image_takes_a_near_one(tmp_path: Path):
    root = one_clip(casme2(tmp_path, [GOOD], [(1, "EP02_01f", 1)]), 46, 83)
    database = load("casme2", root)
    assert database.samples[0].offset == 83
    assert "no image of the offset, 86: 83 is taken" in database.repaired[0]


def test_rows_are_counted_as_the_spreadsheet_does(tmp_path: Path):
    one_clip(tmp_path)
    table = (*GOOD[:2], None, *GOOD[2:5], None, *GOOD[5:])
    write_xlsx(tmp_path / "CASME2-coding-20140508.xlsx", [(), (), CASME2_HEADER, (), table])
    (sample,) = load("casme2", tmp_path).samples
    assert sample.source.endswith("row 5")


def test_duplicate_rows(tmp_path: Path):
    root = one_clip(casme2(tmp_path / "a", [GOOD, GOOD], [(1, "EP02_01f", 1)]))
    database = load("casme2", root)
    assert len(database.samples) == 1 and "row 3" in database.repaired[0]
    lower = (GOOD[0], "ep02_01F", *GOOD[2:])
    root = one_clip(casme2(tmp_path / "c", [GOOD, lower], [(1, "EP02_01f", 1)]))
    assert len(load("casme2", root).samples) == 1, "a clip's name counts without case"
    other = (*GOOD[:3], 60, *GOOD[4:])
    root = one_clip(casme2(tmp_path / "b", [GOOD, other]))
    with pytest.raises(DatasetError, match="row 3: sub01 EP02_01f is in row 2 too.*delete"):
        load("casme2", root)


def test_unknown_action_units_are_listed(tmp_path: Path):
    root = one_clip(casme2(tmp_path, [(*GOOD[:5], "4+smile", "puzzled")]))
    database = load("casme2", root)
    (sample,) = database.samples
    assert sample.units == ("4",) and sample.objective is None, "half a set says no class"
    text = "\n".join(database.repaired)
    assert "'smile' is none known" in text and "'puzzled' is none known" in text and "row 2" in text


@pytest.mark.parametrize(
    ("cell", "message"),
    [("46a", "onset is '46a', no frame number"), (46.5, "no frame number"), (None, "no frame number"),
     (date(2014, 5, 8), "is a date")],
)  # fmt: skip
def test_a_bad_cell_names_file_sheet_and_row(tmp_path: Path, cell: object, message: str):
    root = one_clip(casme2(tmp_path, [(*GOOD[:2], cell, *GOOD[3:])]))
    with pytest.raises(DatasetError, match=message) as caught:
        load("casme2", root)
    assert "CASME2-coding-20140508.xlsx, sheet Sheet1, row 2: onset" in str(caught.value)


def test_text_that_a_terminal_would_obey_is_refused(tmp_path: Path):
    path = tmp_path / "sheet.csv"
    path.write_text("subject,clip\n sébastien b ,c\n\x1b[31mred,c\n", encoding="utf-8")
    first, second = read_table(path, ["subject", "clip"]).rows
    assert first.text("subject") == "sébastien b"
    cells = {"units": "4\xa0+ 7\n", "emotion": "others\n(repeated)"}
    assert replace(first, cells=cells).text("units") == "4\xa0+ 7"
    assert replace(first, cells=cells).text("emotion") == "others\n(repeated)"
    with pytest.raises(DatasetError, match=r"sheet.csv, row 3: subject is '\\x1b\[31mred', with characters"):
        second.text("subject")


def test_sheets_that_cannot_be_used(tmp_path: Path):
    for name in LOADERS:
        with pytest.raises(DatasetError, match="nowhere does not exist: give the folder"):
            load(name, tmp_path / "nowhere", None if name == "smic" else tmp_path / "sheet.xlsx")
    with pytest.raises(DatasetError, match="no sheet of annotations.*--sheet"):
        load("casme2", tmp_path)
    path = write_xlsx(tmp_path / "CASME2-coding-20140508.xlsx", [("Subject", "Filename", "OnsetFrame")])
    with pytest.raises(DatasetError, match=r"row 1, lacks apex \(ApexFrame"):
        load("casme2", tmp_path)
    path.write_bytes(b"no spreadsheet at all")
    with pytest.raises(DatasetError, match="cannot be read as a spreadsheet"):
        load("casme2", tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w") as bomb:
        for _ in range(257):
            bomb.write(bytes(1 << 20))
    with pytest.raises(DatasetError, match="unpacks to"):
        load("casme2", tmp_path)
    write_xlsx(path, [CASME2_HEADER])
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\r\n"))  # as a transfer as text does
    with pytest.raises(DatasetError, match="is damaged.*take the file that came with"):
        load("casme2", tmp_path)
    with pytest.raises(DatasetError, match="unknown database"):
        load("casme4", tmp_path)


def test_a_name_in_a_sheet_leads_nowhere_else(tmp_path: Path):
    root = one_clip(casme2(tmp_path / "in", [GOOD, ("01", "../../../out", 1, 2, 3, "4", "anger")]))
    write_frames(tmp_path / "out", range(1, 5))
    assert len(load("casme2", root).samples) == 1


# -- SAMM ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preamble", [0, 13])
def test_samm(tmp_path: Path, preamble: int):
    rows = [
        (6, "006_1_2", 3, 5562, 5571, 5588, 27, "Micro - 1/2", "(R6 or R12)+R15", "Other", 7, None),
        (6, "006_1_3", 3, 5562, None, 5588, 27, "Micro - 1/2", "ref(7B)+43C", "Anger", "III", "x"),
    ]
    text = [("SAMM dataset, notes",)] * preamble
    write_xlsx(tmp_path / "SAMM_Micro_FACS_Codes_v2.xlsx", [*text, SAMM_HEADER, *rows])
    for clip in ("006_1_2", "006_1_3"):
        write_frames(tmp_path / "006" / clip, range(5560, 5590), "006_0{}.jpg")
    database = load("samm", tmp_path)
    first, second = database.samples
    assert (first.subject, first.clip, first.onset, first.apex, first.fps) == (
        "006",
        "006_1_2",
        5562,
        5571,
        200,
    )
    assert first.paths is not None and first.paths[0].name == "006_05562.jpg"
    assert first.objective == "VII" and first.emotion == "others" and first.units == ("R6", "R15")
    assert second.apex_missing and second.objective == "III"
    assert first.source.endswith(f"row {preamble + 2}")
    assert len(database.repaired) == 2, "an alternative and a reference face are told"


# -- the others ----------------------------------------------------------------------------------------


def test_casme3_has_several_expressions_in_one_video(tmp_path: Path):
    header = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class (Roman)", "emotion")
    rows = [
        ("spNO.1", "b", 175, 179, 187, "4", "III", "disgust"),
        ("spNO.1", "b", 300, 303, 309, "12", "I", "happy"),
    ]
    write_xlsx(tmp_path / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", [header, *rows])
    write_frames(tmp_path / "spNO.1/b/color", [*range(175, 188), *range(300, 310)], "{}.jpg")
    first, second = load("casme3", tmp_path).samples
    assert (first.clip, second.clip, first.fps) == ("b_175", "b_300", 30)
    assert (first.objective, second.objective, second.emotion) == ("III", "I", "happiness")


def test_mmew_lies_by_emotion(tmp_path: Path):
    header = (*CASME2_HEADER, "remarks")
    row = (3, "S03-001", None, 1, 20, 40, None, "4", "anger", "blink")
    write_xlsx(tmp_path / "MMEW_Micro_Exp.xlsx", [header, row])
    write_frames(tmp_path / "Micro_Expression/anger/S03-001", range(1, 41), "{}.jpg")
    (sample,) = load("mmew", tmp_path).samples
    assert (sample.subject, sample.fps, sample.emotion, sample.objective) == ("3", 90, "anger", "III")


def test_4dme(tmp_path: Path):
    header = ("sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs", "Positive")
    rows = [
        ("S1", "S1_a", "Positive", 10, 14, 20, "AU12", 1),
        ("S1", "S1_b", "Negative and Surprise", 10, 14, 20, "AU1+AU4(k)", 0),
    ]
    write_xlsx(tmp_path / "4DME_Labelling_Micro_release v1.xlsx", [header, *rows])
    write_frames(tmp_path / "gray_micro/S1/S1_a", range(10, 21), "{}.jpg")
    write_frames(tmp_path / "gray_micro/S1_b", range(10, 21), "{}.jpg")
    database = load("fourdme", tmp_path)
    first, second = database.samples
    assert (first.emotion, first.units, first.objective, first.fps) == ("positive", ("12",), "I", 60)
    assert second.emotion is None and second.units == ("1", "4") and second.objective == "V"
    assert any("several emotions" in line for line in database.repaired)


def test_smic_has_no_sheet_and_no_apex(tmp_path: Path):
    for camera in ("HS", "NIR"):
        for emotion, clip in (("negative", "s1_ne_01"), ("positive", "s1_po_01"), ("surprise", "s1_sur_01")):
            write_frames(tmp_path / camera / "s01/micro" / emotion / clip, range(7, 30), "image{}.bmp")
    database = load("smic", tmp_path)
    assert len(database.samples) == 3 and all(sample.apex_missing for sample in database.samples)
    sample = database.samples[0]
    assert (sample.subject, sample.onset, sample.offset, sample.fps) == ("s01", 7, 29, 100)
    assert sample.objective is None
    assert select(database.samples, "megc3").counts == {"negative": 1, "positive": 1, "surprise": 1}
    assert load("smic", tmp_path / "NIR").samples[0].fps == 25
    assert len(load("smic", tmp_path / "HS").samples) == 3
    with pytest.raises(DatasetError, match="HS/s01/micro"):
        load("smic", tmp_path / "HS/s01")


def test_manifest(tmp_path: Path):
    write_frames(tmp_path / "frames/anna", range(46, 87))
    (tmp_path / "points.npz").write_bytes(b"")
    path = tmp_path / "mine.csv"
    path.write_text(
        "subject,clip,folder,onset,apex,offset,fps,emotion,objective_class,action_units,landmarks\n"
        "anna,01,frames/anna,46,59,86,60,happiness,,6+12,\n"
        "anna,02,frames/anna,,,,,,VII,,\n"
        "bert,01,,,,,,surprise,,1+2,points.npz\n"
        "carl,01,,,,,,surprise,,1+2,nothing.npz\n",
        encoding="utf-8",
    )
    for root in (tmp_path, path):
        database = load("manifest", root)
        first, second, third = database.samples
        assert (first.fps, first.objective, first.units) == (60, "I", ("6", "12"))
        assert (second.onset, second.apex, second.offset, second.objective) == (46, None, 86, "VII")
        assert third.landmarks == tmp_path / "points.npz" and third.paths is None
        assert len(database.missing) == 1 and "row 5" in database.missing[0]
    path.write_text("subject,folder,fps\nanna,frames/anna,often\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="mine.csv, row 2: fps is 'often'"):
        load("manifest", path)
    path.write_text("subject,folder,onset,offset\nanna,frames/anna,-7,-1\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="row 2: onset is '-7', no frame number"):
        load("manifest", path)
    path.write_text("subject,folder\n,frames/anna\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="row 2: subject is empty"):
        load("manifest", path)


def manifest(folder: Path, *lines: str) -> Path:
    path = folder / "mine.csv"
    path.write_text("\n".join(("subject,clip,folder,onset,offset,emotion", *lines, "")), encoding="utf-8")
    return path


def test_several_expressions_of_one_clip_are_several_samples(tmp_path: Path):
    write_frames(tmp_path / "long", range(1, 60))
    path = manifest(tmp_path, "anna,a,long,1,20,happiness", "anna,a,long,30,50,surprise")
    database = load("manifest", path)
    assert [sample.name for sample in database.samples] == ["manifest/anna/a", "manifest/anna/a_30"]
    assert "row 3: a further expression of anna a: called a_30" in "".join(database.repaired)
    (tmp_path / "points.npz").write_bytes(b"")
    given = tmp_path / "given.csv"
    given.write_text(
        "subject,clip,landmarks,onset\n" + "".join(f"anna,a,points.npz,{n}\n" for n in (7, 8, 9))
    )
    assert [sample.clip for sample in load("manifest", given).samples] == ["a", "a_8", "a_9"]
    path = manifest(tmp_path, "anna,a_30,long,1,20,", "anna,a,long,2,20,", "anna,a,long,30,50,")
    with pytest.raises(DatasetError, match="row 4: anna a_30 is the name of another sample: rename"):
        load("manifest", path)


def test_one_name_for_the_clips_of_two_folders(tmp_path: Path):
    for name in ("monday", "tuesday"):
        write_frames(tmp_path / name, range(1, 20))
    path = manifest(tmp_path, "anna,a,monday,,,happiness", "anna,a,tuesday,,,happiness")
    with pytest.raises(DatasetError, match="row 3: anna a is in .*row 2 too, with other values"):
        load("manifest", path)


@pytest.mark.parametrize(("first", "second"), [("anna", "Anna"), ("1", "01"), ("anna b", "anna  b")])
def test_one_person_written_in_two_ways(tmp_path: Path, first: str, second: str):
    write_frames(tmp_path / "long", range(1, 60))
    path = manifest(tmp_path, f"{first},a,long,1,20,", f"{second},b,long,30,50,")
    with pytest.raises(DatasetError, match="row 3: subject .*row 2: write one person in one way"):
        load("manifest", path)


def test_a_folder_that_cannot_be(tmp_path: Path):
    with pytest.raises(DatasetError, match="File name too long.*the sheet that names it"):
        load("manifest", manifest(tmp_path, f"anna,a,{'x' * 5000},,,"))


def test_images_of_a_simulated_tree_are_simulated_whoever_names_them(tmp_path: Path):
    write_frames(tmp_path / "tree/frames/long", range(1, 20))
    (tmp_path / "mine").mkdir()
    path = manifest(tmp_path / "mine", "anna,a,../tree/frames/long,,,happiness")
    assert not load("manifest", path).simulated
    (tmp_path / "tree" / SIMULATED_MARK).write_text('{"simulated": true}', encoding="utf-8")
    database = load("manifest", path)
    assert database.simulated and database.samples[0].simulated


# -- simulated, and the command ------------------------------------------------------------------------


def test_a_simulated_tree_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = one_clip(casme2(tmp_path, [GOOD]))
    (root / SIMULATED_MARK).write_text(json.dumps({"simulated": True}), encoding="utf-8")
    database = load("casme2", root)
    assert database.simulated and database.samples[0].simulated
    assert main(["check", "--dataset", "casme2", "--root", str(root)]) == 0
    assert "SIMULATED" in capsys.readouterr().out


def test_the_command_knows_every_database():
    assert get_args(DatabaseName) == tuple(LOADERS)


def test_check_lists_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [GOOD, ("01", "B", 46, "/", 86, "4", "disgust"), ("03", "C", 1, 2, 3, "4", "disgust")]
    root = one_clip(casme2(tmp_path, rows))
    write_frames(root / "Cropped/sub01/B", range(46, 87), "reg_img{}.jpg")
    (root / "Cropped/sub01/B/reg_img86.jpg").write_bytes(b"\xff\xd8 cut")
    assert main(["check", "--dataset", "casme2", "--root", str(root)]) == 1
    text = capsys.readouterr().out
    assert "found: 2 samples of 1 subjects; 1 without an apex" in text
    assert "missing: 1" in text and "sub03" in text
    assert "damaged: 1" in text and "reg_img86.jpg cannot be read" in text
    assert "AU4 1, AU12 1" in text
    assert main(["check", "--dataset", "samm", "--root", str(root)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "no sheet" in error and error.count("\n") == 1
