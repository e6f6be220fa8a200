"""All attacks by name; add one line here for a new one."""

from functools import partial

from adversary.attack import Attack
from adversary.attacks.analytic import analytic
from adversary.attacks.attribute_inference import attribute_inference
from adversary.attacks.baselines import random, uniform
from adversary.attacks.cosine_mia import cosine_mia
from adversary.attacks.dimitrov import dimitrov
from adversary.attacks.dlg import dlg
from adversary.attacks.eb_gls import eb_gls
from adversary.attacks.eb_gls_rounds import eb_gls_rounds
from adversary.attacks.eb_gls_sim import eb_gls_sim
from adversary.attacks.fedmia import fedmia
from adversary.attacks.geng import zlg, zlg_plus
from adversary.attacks.grad_inversion import grad_inversion
from adversary.attacks.gradient_difference_mia import gradient_difference_mia
from adversary.attacks.idlg import idlg
from adversary.attacks.ilrg import ilrg
from adversary.attacks.inverting_gradients import inverting_gradients
from adversary.attacks.joint import joint
from adversary.attacks.llbg import llbg
from adversary.attacks.llg import llg, llg_plus, llg_star
from adversary.attacks.quantile_mia import quantile_mia
from adversary.attacks.r_gap import hybrid, r_gap
from adversary.attacks.rlg import rlg
from adversary.attacks.rlu import rlu
from adversary.attacks.see_through_gradients import see_through_gradients
from adversary.attacks.shadow_inference import (
    distribution_inference,
    property_inference,
    user_inference,
)
from adversary.attacks.source_inference import source_inference
from adversary.attacks.spear import spear
from adversary.attacks.update_lira import update_lira
from adversary.attacks.user_ratio import user_ratio
from adversary.attacks.whitened_mia import whitened_mia

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        Attack("llg", "label", llg, summary="counts from the head gradient's row sums"),
        Attack("llg-star", "label", llg_star, summary="LLG*, calibrated on dummy inputs"),
        Attack(
            "llg-plus",
            "label",
            llg_plus,
            ("inputs", "labels"),
            "LLG+, calibrated on auxiliary data",
        ),
        Attack("idlg", "label", idlg, summary="the one label of a single-example gradient"),
        Attack(
            "grad-inversion",
            "label",
            grad_inversion,
            summary="rows with the lowest entries, in turn",
        ),
        Attack("rlg", "label", rlg, summary="the set of classes that a direction separates"),
        Attack("zlg", "label", zlg, summary="counts from mean probabilities on noise"),
        Attack(
            "zlg-plus",
            "label",
            zlg_plus,
            ("inputs",),
            "ZLG+, mean probabilities on auxiliary data",
        ),
        Attack("dimitrov", "label", dimitrov, summary="ZLG, interpolated over several local steps"),
        Attack("ilrg", "label", ilrg, summary="counts from linear equations in class embeddings"),
        Attack("llbg", "label", llbg, summary="LLG on the bias gradient"),
        Attack(
            "rlu",
            "label",
            rlu,
            ("inputs", "labels"),
            "counts by least squares, simulating several local steps",
        ),
        Attack(
            "eb-gls",
            "label",
            eb_gls,
            needs=("inputs", "labels"),
            summary="moments of each class, least squares, empirical-Bayes prior",
        ),
        Attack(
            "eb-gls-gibbs",
            "label",
            partial(eb_gls, refine="gibbs"),
            needs=("inputs", "labels"),
            summary="EB-GLS, answering with the largest expected overlap",
        ),
        Attack(
            "eb-gls-sim",
            "label",
            eb_gls_sim,
            needs=("inputs", "labels"),
            summary="EB-GLS, corrected by rehearsing the local training",
            adaptive=False,
        ),
        Attack(
            "eb-gls-rounds",
            "label",
            eb_gls_rounds,
            needs=("inputs", "labels"),
            summary="EB-GLS on all of a client's updates so far",
            adaptive=False,
        ),
        Attack(
            "cosine-mia",
            "membership",
            cosine_mia,
            needs=("candidates",),
            summary="cosine of the update and each candidate's own gradient",
        ),
        Attack(
            "gradient-difference-mia",
            "membership",
            gradient_difference_mia,
            needs=("candidates",),
            summary="how much shorter the update is without each candidate's gradient",
        ),
        Attack(
            "whitened-mia",
            "membership",
            whitened_mia,
            needs=("inputs", "labels", "candidates"),
            summary="cosine, entries weighted by how much clients differ in them",
        ),
        Attack(
            "whitened-mia-full",
            "membership",
            partial(whitened_mia, covariance="full"),
            needs=("inputs", "labels", "candidates"),
            summary="cosine of what auxiliary gradients do not explain of the update",
            adaptive=False,
        ),
        Attack(
            "fedmia",
            "membership",
            fedmia,
            needs=("candidates",),
            summary="the cosine's z-score among the round's other clients",
            adaptive=False,
        ),
        Attack(
            "update-lira",
            "membership",
            update_lira,
            needs=("inputs", "labels", "candidates"),
            summary="likelihood ratio of the cosine, from rehearsed clients",
            rehearses=True,
        ),
        Attack(
            "quantile-mia",
            "membership",
            quantile_mia,
            needs=("inputs", "labels", "candidates"),
            summary="the cosine above a threshold for each kind of record",
            adaptive=False,
        ),
        Attack(
            "source-inference",
            "source",
            source_inference,
            needs=("candidates",),
            summary="the loss of each candidate under the client's local model",
        ),
        Attack(
            "source-whitened",
            "source",
            partial(whitened_mia, covariance="full"),
            needs=("inputs", "labels", "candidates"),
            summary="whitened-mia-full, to name the client of each candidate",
            adaptive=False,
        ),
        Attack(
            "aia",
            "attribute",
            attribute_inference,
            needs=("inputs", "labels", "candidates", "marks", "encoding"),
            summary="an attribute of records that the client holds, by a likelihood ratio",
        ),
        Attack(
            "pia",
            "property",
            property_inference,
            needs=("inputs", "labels", "marks"),
            summary="whether any example has the property, from rehearsed clients",
        ),
        Attack(
            "dia",
            "distribution",
            distribution_inference,
            needs=("inputs", "labels", "marks"),
            summary="which share of the examples has it, from rehearsed clients",
        ),
        Attack(
            "uia",
            "user",
            user_inference,
            needs=("inputs", "labels", "marks"),
            summary="whose examples they are, from rehearsed clients",
        ),
        Attack(
            "uia-ratio",
            "user",
            user_ratio,
            needs=("inputs", "labels", "marks"),
            summary="the user whose other records the update makes likelier",
            adaptive=False,
        ),
        Attack(
            "cosine-mia-rounds",
            "membership",
            cosine_mia,
            needs=("candidates",),
            summary="the cosine's mean over a client's rounds so far",
            over_rounds=True,
        ),
        Attack(
            "whitened-mia-full-rounds",
            "membership",
            partial(whitened_mia, covariance="full"),
            needs=("inputs", "labels", "candidates"),
            summary="whitened-mia-full, its mean over the rounds so far",
            adaptive=False,
            over_rounds=True,
        ),
        Attack(
            "fedmia-rounds",
            "membership",
            fedmia,
            needs=("candidates",),
            summary="the z-score among clients, its mean over the rounds so far",
            adaptive=False,
            over_rounds=True,
        ),
        Attack(
            "update-lira-rounds",
            "membership",
            update_lira,
            needs=("inputs", "labels", "candidates"),
            summary="update-lira, its mean over the rounds so far",
            rehearses=True,
            over_rounds=True,
        ),
        Attack(
            "source-whitened-rounds",
            "source",
            partial(whitened_mia, covariance="full"),
            needs=("inputs", "labels", "candidates"),
            summary="source-whitened, its mean over the rounds so far",
            adaptive=False,
            over_rounds=True,
        ),
        Attack(
            "aia-rounds",
            "attribute",
            partial(attribute_inference, over_rounds=True),
            needs=("inputs", "labels", "candidates", "marks", "encoding"),
            summary="aia on all of a client's updates so far",
            over_rounds=True,
        ),
        Attack(
            "pia-rounds",
            "property",
            partial(property_inference, over_rounds=True),
            needs=("inputs", "labels", "marks"),
            summary="pia on all of a client's updates so far",
            over_rounds=True,
        ),
        Attack(
            "dia-rounds",
            "distribution",
            partial(distribution_inference, over_rounds=True),
            needs=("inputs", "labels", "marks"),
            summary="dia on all of a client's updates so far",
            over_rounds=True,
        ),
        Attack(
            "uia-rounds",
            "user",
            partial(user_inference, over_rounds=True),
            needs=("inputs", "labels", "marks"),
            summary="uia on all of a client's updates so far",
            over_rounds=True,
        ),
        Attack(
            "dlg",
            "reconstruction",
            dlg,
            summary="inputs and labels with the client's gradient, by L-BFGS",
            adaptive=False,
        ),
        Attack(
            "idlg-inversion",
            "reconstruction",
            partial(dlg, labels="recovered"),
            summary="dlg with labels from a label attack",
            adaptive=False,
        ),
        Attack(
            "inverting-gradients",
            "reconstruction",
            inverting_gradients,
            summary="inputs whose gradient points where the client's does, smooth",
            rehearses=True,
        ),
        Attack(
            "see-through-gradients",
            "reconstruction",
            see_through_gradients,
            summary="GradInversion: restarts drawn to what they agree upon",
            rehearses=True,
        ),
        Attack(
            "analytic",
            "reconstruction",
            analytic,
            summary="inputs of a fully connected first layer, by ratios of gradients",
            adaptive=False,
        ),
        Attack(
            "spear",
            "reconstruction",
            spear,
            summary="a whole batch behind a fully connected ReLU layer, exact",
            adaptive=False,
        ),
        Attack(
            "r-gap",
            "reconstruction",
            r_gap,
            summary="one input, by a linear system per layer from the last to the first",
            adaptive=False,
        ),
        Attack(
            "hybrid",
            "reconstruction",
            hybrid,
            summary="r-gap, and the smoothest picture that fits where a layer leaves it open",
            adaptive=False,
        ),
        Attack(
            "joint",
            "reconstruction",
            joint,
            summary="inputs by Gauss-Newton steps on the whole gradient",
            adaptive=False,
        ),
        Attack("random", "label", random, summary="every label at random", baseline=True),
        Attack("uniform", "label", uniform, summary="all classes equally often", baseline=True),
    )
}
