"""Claims about language models, which wait for chapter 7."""

from gomhc.claims.base import ABSTRACT, KROMHC_ABSTRACT, LANGUAGE, Claim

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "kromhc-matches",
        LANGUAGE,
        "KromHC matches or beats other mHC variants in language models.",
        KROMHC_ABSTRACT,
        "To be fixed with chapter 7: equal d for all arms, at least three paired seeds, learning "
        "rates tuned.",
    ),
    Claim(
        "language-model",
        LANGUAGE,
        "go-mHC works in a GPT-style language model of 30 million parameters.",
        ABSTRACT,
        "To be fixed with chapter 7. The authors' release lacks the module that holds their "
        "hyper-connection, and the values of their tables are not public.",
    ),
    Claim(
        "scaling-d",
        LANGUAGE,
        "go-mHC makes the number of streams d a practical dimension of model capacity.",
        ABSTRACT,
        "To be fixed with chapter 7: losses of language models against d at equal compute.",
    ),
)
