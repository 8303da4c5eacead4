"""Short texts of two kinds, as distinct as people write them: a small real language problem without a data set."""

import itertools

TOPICS = {
    "cooking": (
        ["soup", "bread", "curry", "pancakes", "risotto", "lentils"],
        [
            "Simmer the {} gently and season it with salt and thyme.",
            "My {} always burns at the bottom, what am I doing wrong?",
            "A recipe for {} that feeds eight people on a cold evening, with onions, butter and much patience.",
        ],
    ),
    "astronomy": (
        ["Jupiter", "the comet", "a neutron star", "Saturn", "the galaxy", "the eclipse"],
        [
            "Through the telescope {} was brighter than we had expected.",
            "How far is it to {}, and how was that measured?",
            "The spectrum of {} shows hydrogen lines whose shift tells how fast it moves away from us, the paper says.",
        ],
    ),
}


def written() -> list[tuple[str, str]]:
    """36 distinct texts with their topics, the topics in turn."""
    by_topic = [
        [(form.format(thing), topic) for form in forms for thing in things] for topic, (things, forms) in TOPICS.items()
    ]
    return list(itertools.chain.from_iterable(zip(*by_topic, strict=True)))
