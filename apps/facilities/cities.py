"""Where the made-up facilities are: real cities with their districts, streets and insurance. Data, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class City(NamedTuple):
    """`level`: prices here, where 1 is those of the catalogue, in `currency`. `spread_km`: how far from the middle of
    its district a facility may be. `dial` begins its phone numbers."""

    name: str
    country: str
    currency: str
    level: float
    facilities: int
    spread_km: float
    dial: str
    streets: tuple[str, ...]
    districts: Mapping[str, tuple[float, float]]


CITIES = (
    City(
        "Lagos", "NG", "NGN", 420.0, 48, 2.0, "+234 1",
        ("Allen Avenue", "Adeniran Ogunsanya Street", "Herbert Macaulay Way", "Awolowo Road", "Ikorodu Road",
         "Admiralty Way", "Bode Thomas Street", "Broad Street"),
        {"Ikeja": (6.60, 3.35), "Yaba": (6.51, 3.37), "Surulere": (6.50, 3.35), "Ikoyi": (6.45, 3.44),
         "Victoria Island": (6.43, 3.42), "Lekki": (6.45, 3.52), "Mushin": (6.53, 3.35), "Gbagada": (6.56, 3.39),
         "Festac": (6.47, 3.28), "Ajah": (6.47, 3.57), "Ikorodu": (6.62, 3.51)},
    ),
    City(
        "Ibadan", "NG", "NGN", 330.0, 12, 2.0, "+234 2",
        ("Ring Road", "Queen Elizabeth II Road", "Iwo Road", "Oyo Road"),
        {"Bodija": (7.42, 3.91), "Dugbe": (7.39, 3.88), "Mokola": (7.40, 3.89), "Challenge": (7.35, 3.88)},
    ),
    City(
        "Nairobi", "KE", "KES", 70.0, 30, 1.8, "+254 20",
        ("Ngong Road", "Argwings Kodhek Road", "Thika Road", "Moi Avenue", "Waiyaki Way", "Mombasa Road"),
        {"Westlands": (-1.27, 36.81), "Kilimani": (-1.29, 36.79), "Upper Hill": (-1.30, 36.81),
         "Parklands": (-1.26, 36.82), "Eastleigh": (-1.28, 36.85), "Karen": (-1.32, 36.71), "Kasarani": (-1.23, 36.90)},
    ),
    City(
        "London", "GB", "GBP", 0.8, 42, 1.5, "+44 20",
        ("High Street", "Church Road", "Station Road", "Victoria Road", "Park Lane", "Kingsway", "Mill Lane"),
        {"Camden": (51.54, -0.14), "Hackney": (51.55, -0.06), "Islington": (51.54, -0.10), "Southwark": (51.50, -0.09),
         "Lambeth": (51.46, -0.12), "Greenwich": (51.48, 0.00), "Hammersmith": (51.49, -0.23), "Ealing": (51.51, -0.31),
         "Stratford": (51.54, 0.00), "Croydon": (51.37, -0.10), "Whitechapel": (51.52, -0.06)},
    ),
    City(
        "New York", "US", "USD", 1.9, 42, 1.4, "+1 212",
        ("Broadway", "Lexington Avenue", "Atlantic Avenue", "Queens Boulevard", "Grand Concourse", "Flatbush Avenue"),
        {"Harlem": (40.81, -73.95), "Midtown": (40.755, -73.98), "Lower East Side": (40.715, -73.985),
         "Williamsburg": (40.71, -73.955), "Flatbush": (40.64, -73.96), "Astoria": (40.765, -73.92),
         "Flushing": (40.76, -73.83), "Jamaica": (40.70, -73.79), "Fordham": (40.86, -73.90),
         "St. George": (40.63, -74.09)},
    ),
    City(
        "São Paulo", "BR", "BRL", 2.4, 36, 1.8, "+55 11",
        ("Avenida Paulista", "Rua Augusta", "Avenida Brasil", "Rua da Consolação", "Avenida Santo Amaro"),
        {"Bela Vista": (-23.56, -46.65), "Pinheiros": (-23.56, -46.69), "Moema": (-23.60, -46.66),
         "Tatuapé": (-23.54, -46.57), "Santana": (-23.50, -46.63), "Itaquera": (-23.54, -46.46),
         "Santo Amaro": (-23.65, -46.71), "Lapa": (-23.52, -46.70)},
    ),
    City(
        "Tokyo", "JP", "JPY", 95.0, 36, 1.4, "+81 3",
        ("Meiji-dori", "Yasukuni-dori", "Aoyama-dori", "Yamate-dori", "Kasuga-dori"),
        {"Shinjuku": (35.69, 139.70), "Shibuya": (35.66, 139.70), "Minato": (35.66, 139.75), "Taito": (35.71, 139.78),
         "Setagaya": (35.65, 139.65), "Toshima": (35.73, 139.71), "Koto": (35.67, 139.81), "Nerima": (35.74, 139.65),
         "Ota": (35.57, 139.71)},
    ),
    City(
        "Mumbai", "IN", "INR", 26.0, 28, 1.5, "+91 22",
        ("S. V. Road", "Linking Road", "L. B. S. Marg", "Hill Road", "Senapati Bapat Marg"),
        {"Andheri": (19.12, 72.85), "Bandra": (19.06, 72.84), "Dadar": (19.02, 72.845), "Powai": (19.12, 72.905),
         "Borivali": (19.23, 72.86), "Chembur": (19.06, 72.90)},
    ),
    City(
        "Auckland", "NZ", "NZD", 1.5, 20, 1.2, "+64 9",
        ("Great South Road", "Dominion Road", "Karangahape Road", "Great North Road"),
        {"Grafton": (-36.86, 174.77), "Remuera": (-36.88, 174.80), "Takapuna": (-36.79, 174.77),
         "Henderson": (-36.88, 174.63), "Manukau": (-36.99, 174.88), "Epsom": (-36.89, 174.77)},
    ),
    City(
        "Suva", "FJ", "FJD", 0.9, 8, 0.8, "+679 3",
        ("Victoria Parade", "Waimanu Road", "Princes Road"),
        {"Toorak": (-18.135, 178.43), "Samabula": (-18.12, 178.45), "Nabua": (-18.11, 178.46)},
    ),
    City(
        "Taveuni", "FJ", "FJD", 0.9, 4, 0.8, "+679 8",
        ("Naselesele Road", "Waiyevo Road"),
        {"Waiyevo": (-16.79, 179.98), "Matei": (-16.70, -179.88), "Somosomo": (-16.77, -179.97)},
    ),
    City(
        "Apia", "WS", "WST", 1.1, 6, 0.8, "+685 2",
        ("Beach Road", "Vaea Street", "Cross Island Road"),
        {"Moto'otua": (-13.85, -171.76), "Vaitele": (-13.82, -171.80)},
    ),
    City(
        "Tromsø", "NO", "NOK", 9.0, 7, 0.8, "+47 77",
        ("Storgata", "Strandvegen", "Grønnegata"),
        {"Tromsøya": (69.65, 18.96), "Tromsdalen": (69.64, 19.02), "Breivika": (69.68, 18.98)},
    ),
    City(
        "Longyearbyen", "NO", "NOK", 11.0, 2, 0.3, "+47 79",
        ("Hilmar Rekstens vei", "Vei 500"),
        {"Nybyen": (78.21, 15.60), "Sjøområdet": (78.22, 15.64)},
    ),
)  # fmt: skip
