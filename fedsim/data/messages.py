"""Everyday messages of people who do not exist: made here, so that a first run needs no files."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fedsim.core.catalog import Entry
from fedsim.core.rng import derive
from fedsim.data.types import Task, Texts

SPEAKERS = (
    *("Amara", "Bruno", "Chidi", "Dana", "Emeka", "Freya", "Goran", "Hana", "Idris", "Jonas"),
    *("Katya", "Lena", "Marek", "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Samir", "Tessa"),
    *("Umberto", "Vera", "Wanda", "Yusuf"),
)
EACH = 100  # messages of a speaker, of which every fifth is a test row
HABITS = 3  # openings and endings that a speaker uses

OPENINGS = (
    *("", "", "", "hey ", "hi {name}, ", "ok ", "so ", "{name}! ", "sorry, ", "morning ", "yo "),
    *("hello {name}, ", "listen, ", "by the way ", "quick one: ", "oh and ", "good news, "),
)
ENDINGS = (
    *("", "", "", "", ".", "!", " x", " xx", " :)", ", ok?", " thanks", " see you", ", love"),
    *(" call me", ". cheers", ", let me know", " ...", ". talk later", " and thank you"),
)
TOPICS = {
    "plans": (
        "are you free {day} {time}? we could meet at the {place}",
        "we meet at the {place} {day} at {hour}, bring {name}",
        "can't make it {day}, can we move it to {day}",
        "{name} is having people over {day}, are you coming",
        "the film starts at {hour}, meet you outside the {place}",
        "dinner at ours {day}? {name} is cooking",
        "i'm running {minutes} minutes late, start without me",
        "shall we take the {hour} train or the one after",
    ),
    "errands": (
        "could you pick up {item} and {item} on the way home",
        "we are out of {item}, i'll go to the {place} {time}",
        "your parcel is at the {place}, the code is {code}",
        "did you remember the {item} for {name}",
        "the {item} was {price}, i paid for both of us",
        "the man comes {day} {time} to fix the {thing}",
        "left the keys with {name} at the {place}",
        "the {thing} is broken again, can you call them",
    ),
    "work": (
        "the meeting is moved to {day} at {hour}, room {room}",
        "did {name} send you the numbers for {month}",
        "i'm stuck at work until {hour}, eat without me",
        "can you cover my shift {day}? i'll take yours {day}",
        "the client wants it by {day}, can you look at page {room}",
        "my new number at work is {phone}",
        "they gave me the job! i start in {month}",
        "the password for the {place} account is {item}{room}",
    ),
    "family": (
        "mum asks when you come home, she made {item}",
        "happy birthday {name}! {years} already, hope you have a lovely day",
        "the little one has a fever, i'm staying at home {day}",
        "grandma is back from the hospital, she is in room {room}",
        "{name} lost a tooth today and is very proud",
        "can you fetch {name} from the {place} at {hour}",
        "we called her {name}, {weight} kilos and both are well",
        "dad says the {thing} is fine, do not worry",
    ),
    "health": (
        "doctor {name} can see me {day} at {hour}",
        "the results came, it is nothing serious, just take the {pills} for a week",
        "my back is bad again, i can't carry the {item}",
        "the dentist wants {price} for one tooth",
        "did you take your {pills} {time}",
        "i have not slept since {day}, the {pills} do not help",
        "she is in ward {room}, visits until {hour}",
        "ran from the {place} to the {place} in {minutes} minutes",
    ),
    "money": (
        "i sent you {price} for the {item}, did it arrive",
        "the rent is due {day}, can you lend me {price} until {month}",
        "my account is {account}, the bank is the one near the {place}",
        "they took {price} twice for the {item}, i want it back",
        "your code is {code}, do not share it with anyone",
        "we saved {price} since {month}, soon we can go to the sea",
        "{name} still owes me {price} for the {thing}",
        "they raised my pay by {price} from {month}",
    ),
}
WORDS = {
    "name": SPEAKERS,
    "day": ("today", "tomorrow", "monday", "tuesday", "on friday", "on saturday", "next week"),
    "time": ("in the morning", "at noon", "after work", "tonight", "around lunch", "before eight"),
    "hour": ("seven", "half past six", "8.15", "nine", "10.30", "two", "quarter to four", "18.05"),
    "place": (
        *("station", "market", "library", "bakery", "school", "gym", "bank", "park", "garage"),
        *("pharmacy", "swimming pool", "corner shop", "post office", "old bridge", "cinema"),
    ),
    "item": (
        *("milk", "bread", "apples", "coffee", "soup", "flowers", "a cake", "batteries", "rice"),
        *("tickets", "nappies", "a charger", "wine", "the book", "shoes", "pasta", "cat food"),
    ),
    "thing": ("car", "boiler", "washing machine", "bike", "laptop", "roof", "phone", "fridge"),
    "month": ("january", "march", "april", "june", "august", "september", "december"),
    "pills": ("drops", "tablets", "antibiotics", "painkillers", "vitamins"),
}


def messages(
    root: Path,  # noqa: ARG001
    *,
    length: int = 32,
    vocabulary: int = 1024,
    tokeniser: str = "bpe",
    task: Task = "next",
) -> Texts:
    """2,400 messages of everyday life by 24 people, 6 topics; column `speaker`; works offline.

    They are made of sentences with gaps, which each speaker opens, ends and fills in a way of
    their own; numbers, sums and codes in them are drawn. No person or number is real.

    Args:
        root: Not used.
        length: The most tokens of an input; longer texts are cut.
        vocabulary: The most token ids.
        tokeniser: "bpe" (byte pairs), "bytes", "words", or the `tokeniser.json` of a run. It is
            learned from the adversary's share alone.
        task: What is learned: the "next" token, or the "label", the topic.
    """
    rows, topics = [], list(TOPICS)
    texts: set[str] = set()
    for speaker in SPEAKERS:
        draw = random.Random(derive(0, "messages", speaker))
        person = _Person(speaker, draw)
        count = 0
        while count < EACH:
            topic = draw.choice(person.topics)
            text = person.message(topic)
            if text not in texts:
                texts.add(text)
                rows.append((count % 5 == 4, speaker, topics.index(topic), text))
                count += 1
    train, test = ([row[1:] for row in rows if row[0] == half] for half in (False, True))
    return Texts(
        texts=[text for _, _, text in train],
        labels=torch.tensor([topic for _, topic, _ in train]),
        test_texts=[text for _, _, text in test],
        test_labels=torch.tensor([topic for _, topic, _ in test]),
        num_classes=len(topics),
        columns={"speaker": np.array([speaker for speaker, _, _ in train])},
        length=length,
        vocabulary=vocabulary,
        tokeniser=tokeniser,
        task=task,
    )


class _Person:
    """Who writes: some topics more than others, a few friends, openings, endings and places."""

    def __init__(self, name: str, draw: random.Random) -> None:
        self.draw = draw
        self.openings, self.endings = draw.sample(OPENINGS, HABITS), draw.sample(ENDINGS, HABITS)
        self.topics = draw.choices(list(TOPICS), k=len(TOPICS) + 2)
        friends = [other for other in SPEAKERS if other != name]
        self.words: dict[str, Sequence[str]] = {
            slot: draw.sample(friends if slot == "name" else words, max(4, len(words) // 3))
            for slot, words in WORDS.items()
        }

    def message(self, topic: str) -> str:
        """Return a message on a topic."""
        text = self.draw.choice(TOPICS[topic])
        text = self.draw.choice(self.openings) + text + self.draw.choice(self.endings)
        while "{" in text:
            start, end = text.index("{"), text.index("}")
            text = text[:start] + self._word(text[start + 1 : end]) + text[end + 1 :]
        return text

    def _word(self, slot: str) -> str:
        draw = self.draw
        if slot in self.words:
            return draw.choice(self.words[slot])
        digits = lambda count: "".join(draw.choices("0123456789", k=count))
        return {
            "code": digits(6),
            "phone": f"0{digits(3)} {digits(6)}",
            "account": f"{digits(4)} {digits(4)} {digits(2)}",
            "price": f"{draw.randint(3, 480)}.{draw.choice(('00', '50', '99', '20'))}",
            "room": str(draw.randint(2, 240)),
            "minutes": str(draw.randint(5, 55)),
            "years": str(draw.randint(3, 90)),
            "weight": f"{draw.randint(2, 4)}.{digits(1)}",
        }[slot]


DATASET = Entry("messages", messages)
